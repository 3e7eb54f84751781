"""An example image, clicks on it, and the mask that they result in."""

from __future__ import annotations

import numpy as np

from dls.server.engines.region import RegionEngine
from dls.server.volume import Geometry, Mask, Prompt, Volume
from tests.support.synthetic import ellipsoid, noisy

TRUTH = ellipsoid((30, 40, 50), (15, 20, 25), (8, 9, 10))
IMAGE = noisy(TRUTH, 5, np.random.default_rng(3))
CLICKS = [(15, 20, 25), (12, 20, 25), (18, 22, 28)]


def mask_after(clicks: list[tuple[int, int, int]]) -> Mask:
    """Return the mask after the clicks, straight from the engine."""
    segmentation = RegionEngine().open(Volume(IMAGE.copy(), Geometry(IMAGE.shape)))
    for z, y, x in clicks:
        segmentation.add(Prompt.point(z, y, x, foreground=True))
    return segmentation.mask
