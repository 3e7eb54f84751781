"""The working grids: smoothed, perhaps coarser copies of the image around the prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dls.server.engines.region.lasso import Ints
from dls.server.engines.region.seeds import Seeds
from dls.server.volume import Bool, Float32

REACHES = (20, 48, 112, 320)
"""Half-widths of the region of interest, in steps of the finest spacing."""
BUDGET = 64**3
"""Most voxels of a grid: 64^3 are labelled in 3.5 ms, so all levels of a flood take about 0.1 s."""


@dataclass(frozen=True)
class Grid:
    """A smoothed, perhaps coarser, copy of the image around the prompts."""

    low: Ints
    high: Ints
    step: Ints
    values: Float32
    noise: float
    inside: Bool
    outside: Bool


@dataclass(frozen=True)
class Found:
    """A region on a grid, its score and tolerance, and what outside prompts took of it."""

    grid: Grid
    score: float
    tolerance: float
    region: Bool
    taken: Bool


def grids(volume: Float32, spacing: tuple[float, float, float], seeds: Seeds) -> Iterator[Grid]:
    """Yield working grids that reach ever further around the prompts."""
    shape = np.array(volume.shape)
    size = np.array(spacing) / min(spacing)
    for reach in REACHES:
        pad = np.ceil(reach / size).astype(int)
        low = np.maximum(seeds.inside.min(0) - pad, 0)
        high = np.minimum(seeds.inside.max(0) + 1 + pad, shape)
        yield _grid(volume, size, seeds, low, high)
        if (low == 0).all() and (high == shape).all():
            return


def _grid(volume: Float32, size: NDArray[np.float64], seeds: Seeds, low: Ints, high: Ints) -> Grid:
    """Return the working grid of a box, its steps as even in mm as voxels allow."""
    step = np.ones(3, np.int64)
    while np.prod(np.ceil((high - low) / step)) > BUDGET:
        step[np.argmin(np.where(high - low > step, step * size, np.inf))] += 1
    crop = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    small = _shrink(crop, step)
    # One step of the finest axis: at 1 voxel, noise falls 6.7-fold and a radius of 4 keeps its contrast.
    sigma = np.clip((step * size).min() / (step * size), 0.35, 1.0)
    if (step > 1).any():
        sigma = sigma * 0.7
    values = ndimage.gaussian_filter(small, sigma, truncate=3.0)
    noise = noise_of(small) * _damping(sigma)
    blank = np.zeros(values.shape, bool)
    grid = Grid(low, high, step, values, noise, blank, blank)
    inside = mark(grid, seeds.inside)
    outside = mark(grid, np.concatenate([seeds.outside, seeds.beside])) & ~inside
    return replace(grid, inside=inside, outside=outside)


def mark(grid: Grid, voxels: Ints) -> Bool:
    """Return the cells of a grid that hold any of the voxels."""
    mark = np.zeros(grid.values.shape, bool)
    local = voxels[((voxels >= grid.low) & (voxels < grid.high)).all(1)] - grid.low
    mark[tuple((local // grid.step).T)] = True
    return mark


def _shrink(crop: Float32, step: Ints) -> Float32:
    """Return the means of blocks of step voxels, the last block made whole by its edge."""
    if (step == 1).all():
        return crop
    padded = np.pad(crop, [(0, -n % s) for n, s in zip(crop.shape, step, strict=True)], mode="edge")
    for axis, s in enumerate(step):
        if s > 1:
            split = (*padded.shape[:axis], padded.shape[axis] // s, s, *padded.shape[axis + 1 :])
            padded = padded.reshape(split).mean(axis + 1)
    return padded


def noise_of(values: Float32) -> float:
    """Return the noise of an image as the least middle size of its second differences along an axis."""
    # The middle 48^3 voxels are enough: a median over 2.2 million took 75 ms.
    near = values[tuple(slice(max(0, n // 2 - 24), n // 2 + 24) for n in values.shape)]
    sizes = [np.median(np.abs(np.diff(near, 2, axis))) for axis in range(3) if near.shape[axis] > 4]
    return float(min(sizes, default=0.0)) / (0.6745 * float(np.sqrt(6)))


def _damping(sigma: NDArray[np.float64]) -> float:
    """Return what part of white noise a Gaussian of these widths lets through."""
    part = 1.0
    for s in sigma:
        taps = np.exp(-0.5 * (np.arange(-4, 5) / s) ** 2)
        part *= float(np.sqrt((taps**2).sum()) / taps.sum())
    return part
