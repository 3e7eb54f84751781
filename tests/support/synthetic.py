"""Synthetic images of an object with noise, and measures of how well a mask fits the object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass
class Case:
    """An image with one object, and the mask of that object."""

    name: str
    image: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, float, float]


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Return the Dice overlap of two masks, from 0 to 1."""
    both = int(np.count_nonzero(mask.astype(bool) & truth))
    return 2 * both / max(1, int(np.count_nonzero(mask)) + int(np.count_nonzero(truth)))


def ellipsoid(shape: tuple[int, int, int], center: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Return the mask of an ellipsoid; center and radii in voxels."""
    axes = np.ogrid[tuple(slice(0, side) for side in shape)]
    distances = [((axis - c) / r) ** 2 for axis, c, r in zip(axes, center, radii, strict=True)]
    inside: np.ndarray = sum(distances, np.zeros(shape)) <= 1
    return inside


def tube(
    shape: tuple[int, int, int], spacing: tuple[float, ...], radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the mask of a curved tube along the first axis; the radius is in millimetres."""
    size = np.array(shape) * spacing
    t = np.linspace(0.1, 0.9, 400)
    sway = rng.uniform(0.08, 0.16) * size
    phase = rng.uniform(0, 2 * np.pi, 2)
    line = np.stack(
        [
            t * size[0],
            size[1] / 2 + sway[1] * np.sin(5 * t + phase[0]),
            size[2] / 2 + sway[2] * np.cos(4 * t + phase[1]),
        ],
        1,
    )
    index = np.clip(np.round(line / spacing).astype(int), 0, np.array(shape) - 1)
    off = np.ones(shape, bool)
    off[tuple(index.T)] = False
    inside: np.ndarray = ndimage.distance_transform_edt(off, sampling=spacing) <= radius
    return inside


def noisy(truth: np.ndarray, contrast: float, rng: np.random.Generator, bias: float = 0.0) -> np.ndarray:
    """Return an image of the object: background 100, noise 10, contrast in units of the noise."""
    image = 100 + 10 * contrast * truth + rng.normal(0, 10, truth.shape)
    if bias:
        image = image + bias * np.linspace(-1, 1, truth.shape[2])
    return image.astype(np.float32)


def cases() -> list[Case]:
    """Return ellipsoids and tubes of several contrasts, spacings and sizes."""
    found = []
    for seed, (shape, spacing) in enumerate(
        [((64, 64, 64), (1.0, 1.0, 1.0)), ((96, 128, 128), (0.7, 0.7, 0.7)), ((40, 160, 160), (3.0, 1.0, 1.0))]
    ):
        for contrast in (2.5, 4.0, -4.0, 8.0):
            rng = np.random.default_rng([seed, int(contrast * 10) % 97])
            center = [side / 2 + rng.uniform(-0.06, 0.06) * side for side in shape]
            scale = rng.uniform(0.16, 0.3, 3)
            truth = ellipsoid(shape, tuple(center), tuple(scale * shape))
            # A second object of the same intensity, and a bias field of twice the noise from side to side.
            corner = ellipsoid(shape, tuple(0.86 * np.array(shape)), tuple(0.11 * np.array(shape)))
            image = noisy(truth | corner, contrast, rng, 10)
            found.append(Case(f"ellipsoid {shape} contrast {contrast}", image, truth, spacing))
            truth = tube(shape, spacing, rng.uniform(5, 8), rng)
            found.append(Case(f"tube {shape} contrast {contrast}", noisy(truth, contrast, rng, 10), truth, spacing))
    return found


def inside(case: Case) -> tuple[int, int, int]:
    """Return the voxel deepest inside the object."""
    return deepest(case.truth, case.spacing)


def deepest(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[int, int, int]:
    """Return the voxel of the mask that is farthest from its border; spacing in millimetres."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    z, y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return int(z), int(y), int(x)


def largest_error(mask: np.ndarray, case: Case) -> tuple[tuple[int, int, int], bool] | None:
    """Return the deepest voxel of the largest error, and whether the mask lacks it; None for a perfect mask."""
    wrong = mask.astype(bool) != case.truth
    labels, count = ndimage.label(wrong)
    if not count:
        return None
    largest = labels == 1 + int(np.argmax(ndimage.sum_labels(wrong, labels, range(1, count + 1))))
    where = deepest(largest, case.spacing)
    return where, bool(case.truth[where])
