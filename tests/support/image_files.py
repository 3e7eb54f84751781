"""Image files for the tests of `dls segment`: one object with noise, on an oblique grid, in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from dls.segment.images import keeping_locale
from tests.support.synthetic import ellipsoid, noisy

SHAPE, CENTER = (24, 40, 36), (11, 22, 15)
"""Shape of the images and center of the object, (z, y, x)."""
TRUTH = ellipsoid(SHAPE, CENTER, (5, 8, 7))
VOXELS = np.round(noisy(TRUTH, 8, np.random.default_rng(0))).astype(np.int16)
SPACING, ORIGIN = (0.9, 0.8, 2.5), (-31.5, 12.25, -110.0)
"""(x, y, z), as image files have them."""


def rotation() -> np.ndarray:
    """Return direction cosines that are oblique in all planes."""
    a, b = np.deg2rad(12), np.deg2rad(-7)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    both: np.ndarray = about_z @ about_x
    return both


def on_grid(voxels: np.ndarray, like: Any = None) -> Any:
    """Return the voxels as an image of SimpleITK on the oblique grid, or on that of another image."""
    image = sitk.GetImageFromArray(voxels)
    if like is not None:
        image.CopyInformation(like)
        return image
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    image.SetDirection(rotation().ravel())
    return image


def save(path: Path, voxels: np.ndarray = VOXELS) -> Path:
    """Write the voxels to a file of the format that its name says."""
    sitk.WriteImage(on_grid(voxels), str(path))
    return path


def save_like(path: Path, voxels: np.ndarray, image: Path) -> Path:
    """Write a label image on the grid of an image file."""
    sitk.WriteImage(on_grid(voxels.astype(np.uint8), sitk.ReadImage(str(image))), str(path))
    return path


def save_series(folder: Path, uid: str = "1.2.826.0.1.3680043.2.1125.1") -> Path:
    """Write the image as a DICOM series, a file for each slice, in an order of names that is not that of the slices."""
    folder.mkdir(exist_ok=True)
    image, direction = on_grid(VOXELS), rotation()
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    orientation = "\\".join(f"{one:.12f}" for one in (*direction[:, 0], *direction[:, 1]))
    for z in range(SHAPE[0]):
        piece = image[:, :, z]
        position = "\\".join(f"{one:.9f}" for one in image.TransformIndexToPhysicalPoint((0, 0, z)))
        tags = {
            "0008|0060": "CT", "0020|000e": uid, "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0008|0018": f"{uid}.{z + 1}", "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0020|0013": str(z + 1),
            "0020|0032": position, "0020|0037": orientation, "0018|0050": str(SPACING[2]),
        }  # fmt: skip
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid[-1]}-{(7 * z) % SHAPE[0]:02d}.dcm"))
        with keeping_locale():
            writer.Execute(piece)
    return folder


def load(path: Path) -> Any:
    """Read an image file."""
    return sitk.ReadImage(str(path))


def voxels_of(path: Path) -> np.ndarray:
    """Return the voxels of an image file, shape (z, y, x)."""
    return np.array(sitk.GetArrayFromImage(load(path)))


def assert_same_grid(mask: Any, image: Any, tolerance: float = 0.0) -> None:
    """Compare size, spacing, origin and direction."""
    assert mask.GetSize() == image.GetSize()
    for of in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(mask, of)(), getattr(image, of)(), rtol=0, atol=tolerance, err_msg=of)
