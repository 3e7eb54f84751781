"""Place the border of a region halfway between the local intensities inside and outside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dls.server.engines.region.grid import Candidate, Grid, estimate_noise
from dls.server.engines.region.lasso import Ints, inflate_lasso
from dls.server.engines.region.seeds import Seeds
from dls.server.volume import Bool, Box, Float32, Mask

MAX_OFFSET = 1.0
"""Maximum distance of the border's intensity from the mean inside, in tolerances.

At 1.25 the white matter of a brain includes cortex (660 ml where 616 is right), and at 2 even more of it.
"""


def border_intensities(region: Bool, grid: Grid, tolerance: float) -> tuple[Float32, Bool]:
    """Return the intensities halfway between inside and outside, and where the inside is brighter."""
    inner, outer = _local_means(region, grid)
    # Several tissues may adjoin the region: a border halfway to the darkest one would include the most similar one.
    half = np.clip((outer - inner) / 2, -MAX_OFFSET * tolerance, MAX_OFFSET * tolerance)
    return (inner + half).astype(np.float32), inner > outer


def _local_means(region: Bool, grid: Grid) -> tuple[Float32, Float32]:
    """Return the local means inside the region and just outside it."""
    surroundings = ndimage.binary_dilation(region, iterations=4)
    border = ndimage.binary_dilation(region, iterations=1)
    core = ndimage.binary_erosion(region, iterations=1)
    means = []
    for part in (core | grid.inside, surroundings & ~border):
        weight = ndimage.gaussian_filter(part.astype(np.float32), 3.0) + 1e-6
        total = ndimage.gaussian_filter(np.where(part, grid.values, 0).astype(np.float32), 3.0)
        mean = float(grid.values[part].mean()) if part.any() else 0.0
        means.append((total + 1e-6 * mean) / weight)
    return means[0], means[1]


def keep_connected(region: Bool, inside: Bool) -> Bool:
    """Return the components of a region that contain a cell of a foreground prompt."""
    labels, count = ndimage.label(region)
    is_marked = np.zeros(count + 1, bool)
    is_marked[labels[inside]] = True
    is_marked[0] = False
    components: Bool = is_marked[labels]
    return components


def draw_region(
    volume: Float32, spacing: tuple[float, float, float], seeds: Seeds, candidate: Candidate
) -> tuple[Box, Mask]:
    """Return the box and the mask of a region whose border is placed again at full resolution."""
    full_grid, part = candidate.grid, _slices_with_margin(candidate.region)
    step = full_grid.step
    low: Ints = full_grid.low + np.array([s.start for s in part], np.int64) * step
    high: Ints = np.minimum(full_grid.low + np.array([s.stop for s in part]) * step, full_grid.high)
    grid = replace(full_grid, values=full_grid.values[part], inside=full_grid.inside[part])
    region, excluded = candidate.region[part], (candidate.excluded | full_grid.outside)[part]
    middle, brighter = border_intensities(region, grid, candidate.tolerance)
    contrast = float(np.median(2 * np.abs(middle - grid.values)[region]))
    crop = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    values = _smooth(crop, np.array(spacing), contrast)
    bright = values > _enlarge(middle, step, crop.shape, smooth=True)
    core = ndimage.binary_erosion(region, border_value=1)
    band = ndimage.binary_dilation(region) & ~excluded
    full = bright == _enlarge(brighter, step, crop.shape)
    full &= _enlarge(band, step, crop.shape) & (candidate.score > 0)
    return _apply_prompts(full | _enlarge(core, step, crop.shape), low, high, seeds)


def draw_lassos(volume: Float32, spacing: tuple[float, float, float], seeds: Seeds) -> tuple[Box, Mask]:
    """Return the box and the mask of the bodies of all lassos, with all prompts applied."""
    bodies = [inflate_lasso(volume, spacing, drawn) for drawn in seeds.lassos]
    low = np.min([seeds.inside.min(0), *(at for _, at in bodies)], axis=0)
    high = np.max([seeds.inside.max(0) + 1, *(at + body.shape for body, at in bodies)], axis=0)
    full = np.zeros(high - low, bool)
    for body, at in bodies:
        full[tuple(slice(a, a + n) for a, n in zip(at - low, body.shape, strict=True))] |= body
    return _apply_prompts(full, low, high, seeds)


def _apply_prompts(full: Bool, low: Ints, high: Ints, seeds: Seeds) -> tuple[Box, Mask]:
    """Return the box and the mask of a region with the voxels of the prompts set to what they say."""
    out, inside = (v[((v >= low) & (v < high)).all(1)] - low for v in (seeds.outside, seeds.inside))
    marks = np.zeros(full.shape, bool)
    marks[tuple(inside.T)] = True
    full = full | marks
    full[tuple(out.T)] = False
    mask = keep_connected(full, marks)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (z, y, x), mask.astype(np.uint8)


def _slices_with_margin(region: Bool) -> tuple[slice, ...]:
    """Return the bounds of a region, extended by a margin into which its border may move."""
    bounds = ndimage.find_objects(region.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - 5), min(n, s.stop + 5)) for s, n in zip(bounds, region.shape, strict=True))


def _smooth(crop: Float32, spacing: NDArray[np.float64], contrast: float) -> Float32:
    """Return the image, smoothed according to the ratio of its noise to the contrast."""
    width = float(np.clip(2.5 * estimate_noise(crop) / (contrast + 1e-12), 0.4, 1.0))
    sigma = np.clip(spacing.min() / spacing, 0.35, 1.0) * width
    smooth: Float32 = ndimage.gaussian_filter(crop, sigma, truncate=3.0)
    return smooth


def _enlarge(coarse: NDArray[Any], step: Ints, shape: tuple[int, ...], smooth: bool = False) -> NDArray[Any]:
    """Return a map of cells at full resolution, constant in each cell or linear between cell centres."""
    for axis in range(3):
        if step[axis] > 1:
            coarse = np.repeat(coarse, step[axis], axis)
    fine = coarse[tuple(slice(0, n) for n in shape)]
    # A mean filter over constant blocks is nearly linear between centres, and takes a tenth of the time of zoom.
    return ndimage.uniform_filter(fine, tuple(step)) if smooth and (step > 1).any() else fine
