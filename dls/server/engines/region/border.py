"""Where the region's border lies: halfway between what is inside and what is outside, here and not on the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dls.server.engines.region.grid import Found, Grid, noise_of
from dls.server.engines.region.lasso import Ints, inflated
from dls.server.engines.region.seeds import Seeds
from dls.server.volume import Bool, Box, Float32, Mask

CAP = 1.0
"""A border lies at most this many tolerances from the values inside.

At 1.25 the white matter of a brain takes in cortex (660 ml where 616 is right), at 2 more of it.
"""


def middle_of(region: Bool, grid: Grid, tolerance: float) -> tuple[Float32, Bool]:
    """Return the values midway between either side of the border, and where inside is the brighter."""
    inner, outer = _sides(region, grid)
    # What lies outside may be several tissues: half way to the darkest would take in the nearest.
    half = np.clip((outer - inner) / 2, -CAP * tolerance, CAP * tolerance)
    return (inner + half).astype(np.float32), inner > outer


def _sides(region: Bool, grid: Grid) -> tuple[Float32, Float32]:
    """Return the local means inside the region and just outside it."""
    near = ndimage.binary_dilation(region, iterations=4)
    clear = ndimage.binary_dilation(region, iterations=1)
    core = ndimage.binary_erosion(region, iterations=1)
    means = []
    for part in (core | grid.inside, near & ~clear):
        weight = ndimage.gaussian_filter(part.astype(np.float32), 3.0) + 1e-6
        total = ndimage.gaussian_filter(np.where(part, grid.values, 0).astype(np.float32), 3.0)
        whole = float(grid.values[part].mean()) if part.any() else 0.0
        means.append((total + 1e-6 * whole) / weight)
    return means[0], means[1]


def connected(region: Bool, inside: Bool) -> Bool:
    """Return the components of a region that hold an inside prompt."""
    labels, count = ndimage.label(region)
    keep = np.zeros(count + 1, bool)
    keep[labels[inside]] = True
    keep[0] = False
    kept: Bool = keep[labels]
    return kept


def finish(volume: Float32, spacing: tuple[float, float, float], seeds: Seeds, found: Found) -> tuple[Box, Mask]:
    """Return the region of a grid with its border redrawn at full resolution."""
    whole, part = found.grid, _margin(found.region)
    step = whole.step
    low: Ints = whole.low + np.array([s.start for s in part], np.int64) * step
    high: Ints = np.minimum(whole.low + np.array([s.stop for s in part]) * step, whole.high)
    grid = replace(whole, values=whole.values[part], inside=whole.inside[part])
    region, barred = found.region[part], (found.taken | whole.outside)[part]
    middle, brighter = middle_of(region, grid, found.tolerance)
    contrast = float(np.median(2 * np.abs(middle - grid.values)[region]))
    crop = volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    values = _smoothed(crop, np.array(spacing), contrast)
    bright = values > _enlarge(middle, step, crop.shape, smooth=True)
    core = ndimage.binary_erosion(region, border_value=1)
    band = ndimage.binary_dilation(region) & ~barred
    full = bright == _enlarge(brighter, step, crop.shape)
    full &= _enlarge(band, step, crop.shape) & (found.score > 0)
    return _drawn(full | _enlarge(core, step, crop.shape), low, high, seeds)


def inflate(volume: Float32, spacing: tuple[float, float, float], seeds: Seeds) -> tuple[Box, Mask]:
    """Return the bodies of all lassos, with the drawn voxels."""
    bodies = [inflated(volume, spacing, drawn) for drawn in seeds.lassos]
    low = np.min([seeds.inside.min(0), *(at for _, at in bodies)], axis=0)
    high = np.max([seeds.inside.max(0) + 1, *(at + body.shape for body, at in bodies)], axis=0)
    full = np.zeros(high - low, bool)
    for body, at in bodies:
        full[tuple(slice(a, a + n) for a, n in zip(at - low, body.shape, strict=True))] |= body
    return _drawn(full, low, high, seeds)


def _drawn(full: Bool, low: Ints, high: Ints, seeds: Seeds) -> tuple[Box, Mask]:
    """Return the components of a region with the drawn voxels, those in and those out, obeyed."""
    out, inside = (v[((v >= low) & (v < high)).all(1)] - low for v in (seeds.outside, seeds.inside))
    marks = np.zeros(full.shape, bool)
    marks[tuple(inside.T)] = True
    full = full | marks
    full[tuple(out.T)] = False
    kept = connected(full, marks)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return (z, y, x), kept.astype(np.uint8)


def _margin(region: Bool) -> tuple[slice, ...]:
    """Return the slices of a region's bounds and a margin that its border may move into."""
    bounds = ndimage.find_objects(region.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - 5), min(n, s.stop + 5)) for s, n in zip(bounds, region.shape, strict=True))


def _smoothed(crop: Float32, spacing: NDArray[np.float64], contrast: float) -> Float32:
    """Return the image smoothed no more than its noise against the contrast asks for."""
    width = float(np.clip(2.5 * noise_of(crop) / (contrast + 1e-12), 0.4, 1.0))
    sigma = np.clip(spacing.min() / spacing, 0.35, 1.0) * width
    smooth: Float32 = ndimage.gaussian_filter(crop, sigma, truncate=3.0)
    return smooth


def _enlarge(coarse: NDArray[Any], step: Ints, shape: tuple[int, ...], smooth: bool = False) -> NDArray[Any]:
    """Return a coarse map at full resolution, in blocks or linearly between block centres."""
    for axis in range(3):
        if step[axis] > 1:
            coarse = np.repeat(coarse, step[axis], axis)
    fine = coarse[tuple(slice(0, n) for n in shape)]
    # Blocks averaged over a block are nearly linear between centres, in a tenth of the time of zoom.
    return ndimage.uniform_filter(fine, tuple(step)) if smooth and (step > 1).any() else fine
