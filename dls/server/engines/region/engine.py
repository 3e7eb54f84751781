"""The region engine: implements the protocols of `engines.base` with the algorithm in `grow`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import numpy as np

from dls.server.engines.base import Model, ReportProgress
from dls.server.engines.sanitize import sanitize
from dls.server.volume import LASSO, POINT, SCRIBBLE, Box, Mask, Prompt, Volume, extent, union


class RegionEngine:
    """Segments by region growing; computes on the CPU, two prompts at a time."""

    name = "region"
    key = "region"
    device = "cpu"
    notice = ""
    threads = 2
    models: tuple[Model, ...] = (Model("region", (POINT, SCRIBBLE, LASSO)),)
    official = None

    def load(self, report: ReportProgress) -> None:
        """Import scipy and scikit-image, which takes most of a second; the HTTP side never imports them."""
        importlib.import_module("dls.server.engines.region.grow")

    def session_bytes(self, voxels: int) -> int:
        """Return the bytes of the image (float32) and the mask (uint8)."""
        return 5 * voxels

    def open(self, volume: Volume, mask: Mask | None = None) -> RegionSegmentation:
        """Start to segment an image."""
        sanitize(volume.data)
        return RegionSegmentation(volume, np.zeros(volume.geometry.shape, np.uint8) if mask is None else mask)

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


class RegionSegmentation:
    """The segmentation of one image; every prompt makes the whole region grow again from all prompts."""

    def __init__(self, volume: Volume, mask: Mask) -> None:
        self._volume = volume
        self._prompts: list[Prompt] = []
        self._box: Box | None = None
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Grow the region from all prompts; the mask changes only if this succeeds."""
        return self._refine([*self._prompts, prompt])

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Grow the region once from all prompts, which gives the mask that the last of them gave."""
        self._refine(list(prompts))

    def _refine(self, prompts: list[Prompt]) -> Box | None:
        from dls.server.engines.region import grow

        result = grow.segment(self._volume.data, self._volume.geometry.spacing, prompts)
        previous = self._box
        self._clear()
        if result is not None:
            box, crop = result
            self.mask[box] = crop
            self._box = box
        self._prompts = prompts
        return union(previous, self._box)

    def restore(self, mask: Mask) -> None:
        """Replace the mask until the next prompt, at which the region grows from all prompts again."""
        self.mask[:] = mask
        self._box = extent(self.mask)

    def reset(self) -> None:
        """Remove the prompts and empty the mask."""
        self._clear()
        self._prompts = []

    def _clear(self) -> None:
        if self._box is not None:
            self.mask[self._box] = 0
        self._box = None

    def close(self) -> None:
        """Release the prompts."""
        self._prompts = []
