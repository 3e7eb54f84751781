"""Synthetic images with several objects, of the kind the tiny model was trained on."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SHAPE = (96, 128, 128)


def _field(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    coarse = rng.normal(0, 1, (5,) * 3)
    fine: np.ndarray = ndimage.zoom(coarse, [side / 5 for side in shape], order=1)
    return fine[tuple(slice(0, side) for side in shape)]


def _blob(rng: np.random.Generator, center: np.ndarray, radii: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray]:
    """Return the box and the mask of a rotated ellipsoid; half of them have a wavy surface."""
    margin = radii.max() * 1.35 + 2
    box = tuple(
        slice(max(0, int(c - margin)), min(side, int(c + margin) + 1)) for c, side in zip(center, SHAPE, strict=True)
    )
    grid = np.stack(np.meshgrid(*[np.arange(s.start, s.stop) for s in box], indexing="ij"), -1) - center
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    distance = (((grid @ rotation) / radii) ** 2).sum(-1)
    if rng.random() < 0.5:
        distance = distance + rng.uniform(0.15, 0.4) * _field(rng, distance.shape)
    return box, distance < 1


def phantom(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (float32) and the labels of its objects (1, 2, …), both of shape (z, y, x).

    The objects have radii from 8 to 18 voxels.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint8)
    noise = rng.uniform(6, 18)
    image = 100 + rng.uniform(0, 1) * noise * _field(rng, SHAPE)
    for _ in range(40):
        if labels.max() >= 5:
            break
        radii = np.clip(rng.uniform(8, 16) * rng.uniform(0.8, 1.2, 3), 8, 18)
        center = np.array([rng.uniform(28, side - 28) for side in SHAPE])
        box, inside = _blob(rng, center, radii)
        parts, count = ndimage.label(inside)
        if count > 1:
            inside = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
        if inside.sum() < 500 or ndimage.binary_dilation(labels[box] > 0, iterations=2)[inside].any():
            continue
        labels[box][inside] = labels.max() + 1
        image[box][inside] += rng.choice([-1, 1]) * rng.uniform(3, 8) * noise
    image = ndimage.gaussian_filter(image, rng.uniform(0.3, 0.9)) + rng.normal(0, noise, SHAPE)
    return image.astype(np.float32), labels
