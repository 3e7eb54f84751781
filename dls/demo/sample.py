"""The demo's image: the MNI ICBM152 T1 template (1 mm), cropped to the brain, in 64 grey levels."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import numpy.typing as npt

SPACING = (1.0, 1.0, 1.0)
"""Voxel spacing (z, y, x) in mm."""
VENTRICLE = (94, 97, 82)
"""A voxel (z, y, x) in a lateral ventricle; MNI (10, -10, 22) mm."""
WHITE_MATTER = (102, 82, 98)
"""A voxel (z, y, x) in the white matter of a hemisphere; MNI (26, -25, 30) mm."""
THALAMUS = (80, 89, 84)
"""A voxel (z, y, x) in a thalamus; MNI (12, -18, 8) mm."""


def load() -> npt.NDArray[np.float32]:
    """Return the image, shape (z, y, x)."""
    with files("dls.demo").joinpath("t1.npz").open("rb") as file, np.load(file) as archive:
        return np.ascontiguousarray(archive["t1"], np.float32)
