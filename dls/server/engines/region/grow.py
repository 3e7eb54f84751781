"""Grow the object that the prompts mean: flood by tolerance, and take the level that stands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from dls.server.engines.region.border import connected, finish, inflate, middle_of
from dls.server.engines.region.grid import Found, Grid, grids, mark
from dls.server.engines.region.lasso import Ints
from dls.server.engines.region.seeds import Seeds, seeds_of
from dls.server.volume import Bool, Box, Float32, Mask, Prompt

LEVELS = 28
"""Tolerances tried, from 1.5 times the noise up."""
ENOUGH = 2.0
"""The score at which a region that does not touch its grid's sides is taken without a wider look."""
CONTINUED = 0.5
"""How much of a lasso the region must fill in a slice beside it to be what was meant."""


def segment(volume: Float32, spacing: tuple[float, float, float], prompts: Sequence[Prompt]) -> tuple[Box, Mask] | None:
    """Return the box and the 0/1 crop of the object the prompts mean, None where there is none."""
    seeds = seeds_of(prompts, np.array(volume.shape))
    if not len(seeds.inside):
        return None
    best: Found | None = None
    cut = True
    for grid in grids(volume, spacing, seeds):
        found = _grow(grid, seeds)
        # A wider look at a cut-off region is coarser and scores less; a closed one must be beaten well.
        if best is None or found.score > (0.6 if cut else 1.3) * best.score:
            best, cut = found, _touches(found, volume.shape)
        if best.score >= ENOUGH and not cut:
            break
    assert best is not None
    if seeds.lassos and not _agrees(best, seeds.lassos):
        return inflate(volume, spacing, seeds)
    return finish(volume, spacing, seeds, best)


def _agrees(found: Found, lassos: Sequence[Ints]) -> bool:
    """Return whether the region goes on in a slice beside each lasso about as it was outlined.

    Where the object does not stand out, the region fills the outline only because that was drawn.
    """
    for drawn in lassos:
        axis = int(np.argmin(np.ptp(drawn, axis=0)))
        cells = mark(found.grid, drawn)
        beside = [np.roll(cells, shift, axis) for shift in (-1, 1)] if cells.shape[axis] > 2 else [cells]
        if max(found.region[marked].mean() for marked in beside) < CONTINUED:
            return False
    return True


def _grow(grid: Grid, seeds: Seeds) -> Found:
    """Return the region of the strokes and the first click, then of the clicks it left far out too."""
    first = 1 + max((k for k, one in enumerate(seeds.samples) if len(one) > 1), default=0)
    found = _best(grid, _centres(grid, seeds.samples[:first]))
    if first < len(seeds.samples):
        anchors = mark(grid, np.concatenate(seeds.samples[:first])) & grid.inside
        grown = connected(found.region, anchors)
        missed = [one for one in seeds.samples[first:] if not _near(one, grown, grid)]
        if missed:
            found = _best(grid, _centres(grid, seeds.samples[:first] + missed))
    return _local(found)


def _near(voxels: Ints, region: Bool, grid: Grid) -> bool:
    """Return whether a click is within 2 voxels of a region: a nudge of its border, whose value is mixed."""
    at = (voxels[0] - grid.low) // grid.step
    return bool(region[tuple(slice(max(0, k - 2), k + 3) for k in at)].any())


def _centres(grid: Grid, groups: Sequence[Ints]) -> NDArray[np.float64]:
    """Return the intensities the prompts stand for, spread marks giving a few quantiles each."""
    found = []
    for voxels in groups:
        local = voxels[((voxels >= grid.low) & (voxels < grid.high)).all(1)] - grid.low
        if len(local):
            drawn = grid.values[tuple((local // grid.step).T)]
            found.append(np.quantile(drawn, np.linspace(0.1, 0.9, 5) if len(drawn) > 4 else [0.5]))
    return np.unique(np.concatenate(found)) if found else np.empty(0)


def _offsets(values: Float32, centres: NDArray[np.float64]) -> Float32:
    """Return how far each value lies from the nearest centre."""
    after = np.searchsorted(centres, values)
    above = np.abs(values - centres[np.minimum(after, len(centres) - 1)])
    below = np.abs(values - centres[np.maximum(after - 1, 0)])
    return np.minimum(above, below).astype(np.float32)


def _best(grid: Grid, centres: NDArray[np.float64]) -> Found:
    """Return the region of the best tolerance, less what outside prompts take of it."""
    offsets = _offsets(grid.values, centres)
    offsets[grid.inside] = 0
    order, thresholds = _flood(offsets, grid)
    scores = _scores(order, grid)
    level, last = _first_peak(scores)
    region = order <= level if scores[level] > 0 else grid.inside
    hit = region & grid.outside
    taken = np.zeros_like(region)
    if hit.any():
        deep = ndimage.distance_transform_edt(region)[hit].max() > 2
        clear = int(order[grid.outside].min())
        # A lower tolerance clears a deep leak if it still makes an object; a shallow one is cut off.
        if deep and clear > 0 and scores[:clear].max() > 0.3 * scores[level]:
            level, last = _first_peak(scores[:clear])
            region = order <= level
        else:
            kept = _split(region, grid)
            region, taken = kept, region & ~kept
    return Found(grid, float(scores[level]), float(thresholds[last]), region, taken)


def _first_peak(scores: NDArray[np.float64]) -> tuple[int, int]:
    """Return the lowest level whose score peaks not far below the best of all, and its plateau's end.

    In a brain, white matter scores 2.9 at its peak and the whole head 4.2 at a later one.
    """
    for level in np.flatnonzero(scores >= 0.6 * scores.max()):
        falls = np.flatnonzero(scores[level:] < 0.93 * scores[level])
        end = level + int(falls[0]) if len(falls) else len(scores)
        if scores[level] >= scores[level:end].max():
            return int(level), int(end) - 1
    return 0, 0


def _flood(offsets: Float32, grid: Grid) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return for each voxel the first tolerance level that joins it to an inside prompt."""
    top = float(offsets.max())
    start = max(1.5 * grid.noise, top / 100, 1e-12)
    thresholds = np.geomspace(start, max(top, start * 1.01), LEVELS)
    order = np.full(offsets.shape, LEVELS, np.int16)
    part: tuple[slice, ...] = (slice(None),) * 3
    for level in range(LEVELS - 1, -1, -1):
        # Lower levels lie within higher ones, so each looks only at the bounds of the last.
        joined = connected(offsets[part] <= thresholds[level], grid.inside[part])
        order[part][joined] = level
        inner = ndimage.find_objects(joined.astype(np.uint8))[0]
        part = tuple(slice((p.start or 0) + q.start, (p.start or 0) + q.stop) for p, q in zip(part, inner, strict=True))
    return order, thresholds


def _scores(order: NDArray[np.int16], grid: Grid) -> NDArray[np.float64]:
    """Return per level how far the shell lies from the region against the spread of both."""
    values = grid.values.astype(np.float64)
    powers = (None, values, values**2)
    shell = ndimage.minimum_filter(order, 3)
    count, total, square = (_upto(order, w) for w in powers)
    # Region and shell together, less the region: all levels at once, no mask for each.
    around, total_around, square_around = (
        _upto(shell, weights) - below for weights, below in zip(powers, (count, total, square), strict=True)
    )
    size, ring = np.maximum(count, 1), np.maximum(around, 1)
    inner = np.maximum(square / size - (total / size) ** 2, 0) + grid.noise**2
    outer = np.maximum(square_around / ring - (total_around / ring) ** 2, 0)
    step = np.abs(total_around / ring - total / size) / np.sqrt(inner + 0.25 * outer + 1e-12)
    faces = np.ones(order.shape, bool)
    faces[tuple(slice(1, -1) if n > 2 else slice(None) for n in order.shape)] = False
    contact = _upto(np.where(faces, order, LEVELS), None)
    # Specks of noise and floods cut off by the sides of the grid stand out by chance.
    scores: NDArray[np.float64] = step * count / (count + 30.0) * np.where(around > 8, around / (ring + contact), 0)
    return scores


def _upto(order: NDArray[np.int16], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return the sums of weights over the voxels of each level and all below."""
    flat = None if weights is None else weights.ravel()
    return np.cumsum(np.bincount(order.ravel(), flat, LEVELS + 1)[:LEVELS]).astype(np.float64)


def _split(region: Bool, grid: Grid) -> Bool:
    """Return the part of a region that inside prompts win from outside ones, cut at its necks."""
    depth = ndimage.distance_transform_edt(region)
    edges = ndimage.gaussian_gradient_magnitude(grid.values, 0.7)
    edges = np.minimum(edges / (np.percentile(edges[region], 95) + 1e-12), 1)
    # Depth says where the neck is, edges where two touching objects meet without one.
    cost = edges - 2.0 * depth / depth.max()
    marks = np.where(grid.inside, 1, np.where(grid.outside, 2, 0))
    won: Bool = watershed(cost, marks, mask=region) == 1  # type: ignore[no-untyped-call]
    return won


def _local(found: Found) -> Found:
    """Return the find with its border moved to where the image crosses the local middle."""
    grid, region = found.grid, found.region
    barred = grid.outside | found.taken
    for _ in range(2 if found.score > 0 else 0):
        middle, brighter = middle_of(region, grid, found.tolerance)
        band = ndimage.binary_dilation(region) & ((grid.values > middle) == brighter)
        region = connected((band & ~barred) | grid.inside, grid.inside)
    return replace(found, region=region)


def _touches(found: Found, shape: tuple[int, ...]) -> bool:
    """Return whether a region meets a side of its grid that is not a side of the image."""
    grid = found.grid
    for axis in range(3):
        ends = np.asarray(found.region.any(tuple(k for k in range(3) if k != axis)))
        if (ends[0] and grid.low[axis] > 0) or (ends[-1] and grid.high[axis] < shape[axis]):
            return True
    return False
