"""Grow a region from the prompts: flood with rising tolerances, and take the level with the best contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from dls.server.engines.region.border import border_intensities, draw_lassos, draw_region, keep_connected
from dls.server.engines.region.grid import Candidate, Grid, iter_grids, mark
from dls.server.engines.region.lasso import Ints
from dls.server.engines.region.seeds import Seeds, collect_seeds
from dls.server.volume import Bool, Box, Float32, Mask, Prompt

LEVELS = 28
"""Number of tolerances in a flood; the lowest is 1.5 times the noise."""
GOOD_SCORE = 2.0
"""Score from which a region that does not touch the sides of its grid is accepted without trying a larger grid."""
MIN_CONTINUATION = 0.5
"""Share of a lasso that the region must fill in an adjacent slice to count as the outlined object."""


def segment(volume: Float32, spacing: tuple[float, float, float], prompts: Sequence[Prompt]) -> tuple[Box, Mask] | None:
    """Return the box of the object that the prompts mark and its mask in that box; None without foreground prompts."""
    seeds = collect_seeds(prompts, np.array(volume.shape))
    if not len(seeds.inside):
        return None
    best: Candidate | None = None
    is_cut_off = True
    for grid in iter_grids(volume, spacing, seeds):
        candidate = _grow(grid, seeds)
        # A larger grid is coarser and scores less, so it may replace a region that was cut off even with a lower score.
        if best is None or candidate.score > (0.6 if is_cut_off else 1.3) * best.score:
            best, is_cut_off = candidate, _touches_side(candidate, volume.shape)
        if best.score >= GOOD_SCORE and not is_cut_off:
            break
    assert best is not None
    if seeds.lassos and not _matches_lassos(best, seeds.lassos):
        return draw_lassos(volume, spacing, seeds)
    return draw_region(volume, spacing, seeds, best)


def _matches_lassos(candidate: Candidate, lassos: Sequence[Ints]) -> bool:
    """Return whether the region has about the outlined shape in a slice adjacent to each lasso.

    Without contrast, the region fills the outline itself only because all its voxels were drawn.
    """
    for drawn in lassos:
        axis = int(np.argmin(np.ptp(drawn, axis=0)))
        cells = mark(candidate.grid, drawn)
        adjacent = [np.roll(cells, shift, axis) for shift in (-1, 1)] if cells.shape[axis] > 2 else [cells]
        if max(candidate.region[marked].mean() for marked in adjacent) < MIN_CONTINUATION:
            return False
    return True


def _grow(grid: Grid, seeds: Seeds) -> Candidate:
    """Return the region of the drawings and the first click, grown again if further clicks are far outside it."""
    first = 1 + max((k for k, sample in enumerate(seeds.samples) if len(sample) > 1), default=0)
    candidate = _best_region(grid, _sample_intensities(grid, seeds.samples[:first]))
    if first < len(seeds.samples):
        anchors = mark(grid, np.concatenate(seeds.samples[:first])) & grid.inside
        grown = keep_connected(candidate.region, anchors)
        missed = [sample for sample in seeds.samples[first:] if not _is_close(sample, grown, grid)]
        if missed:
            candidate = _best_region(grid, _sample_intensities(grid, seeds.samples[:first] + missed))
    return _refine_border(candidate)


def _is_close(voxels: Ints, region: Bool, grid: Grid) -> bool:
    """Return whether a click is within 2 cells of a region: it moves the border, where intensities are mixed."""
    at = (voxels[0] - grid.low) // grid.step
    return bool(region[tuple(slice(max(0, k - 2), k + 3) for k in at)].any())


def _sample_intensities(grid: Grid, groups: Sequence[Ints]) -> NDArray[np.float64]:
    """Return the intensities of the prompts: the median of a small one, five quantiles of a larger one."""
    intensities = []
    for voxels in groups:
        local = voxels[((voxels >= grid.low) & (voxels < grid.high)).all(1)] - grid.low
        if len(local):
            drawn = grid.values[tuple((local // grid.step).T)]
            intensities.append(np.quantile(drawn, np.linspace(0.1, 0.9, 5) if len(drawn) > 4 else [0.5]))
    return np.unique(np.concatenate(intensities)) if intensities else np.empty(0)


def _intensity_distances(values: Float32, centres: NDArray[np.float64]) -> Float32:
    """Return the distance of each value from the nearest of the intensities."""
    after = np.searchsorted(centres, values)
    above = np.abs(values - centres[np.minimum(after, len(centres) - 1)])
    below = np.abs(values - centres[np.maximum(after - 1, 0)])
    return np.minimum(above, below).astype(np.float32)


def _best_region(grid: Grid, centres: NDArray[np.float64]) -> Candidate:
    """Return the region of the best tolerance, without the part that background prompts exclude."""
    offsets = _intensity_distances(grid.values, centres)
    offsets[grid.inside] = 0
    order, thresholds = _flood(offsets, grid)
    scores = _scores(order, grid)
    level, last = _first_peak(scores)
    region = order <= level if scores[level] > 0 else grid.inside
    hit = region & grid.outside
    excluded = np.zeros_like(region)
    if hit.any():
        is_deep = ndimage.distance_transform_edt(region)[hit].max() > 2
        leak_level = int(order[grid.outside].min())
        # A lower tolerance removes a deep leak if it still gives an object; a shallow leak is cut off.
        if is_deep and leak_level > 0 and scores[:leak_level].max() > 0.3 * scores[level]:
            level, last = _first_peak(scores[:leak_level])
            region = order <= level
        else:
            part = _split(region, grid)
            region, excluded = part, region & ~part
    return Candidate(grid, float(scores[level]), float(thresholds[last]), region, excluded)


def _first_peak(scores: NDArray[np.float64]) -> tuple[int, int]:
    """Return the lowest level with a peak of at least 0.6 times the best score, and the last level of that peak.

    In a brain, the peak of the white matter scores 2.9, and a later peak, the whole head, 4.2.
    """
    for level in np.flatnonzero(scores >= 0.6 * scores.max()):
        falls = np.flatnonzero(scores[level:] < 0.93 * scores[level])
        end = level + int(falls[0]) if len(falls) else len(scores)
        if scores[level] >= scores[level:end].max():
            return int(level), int(end) - 1
    return 0, 0


def _flood(offsets: Float32, grid: Grid) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return for each cell the first level that connects it to a foreground prompt, and each level's tolerance."""
    top = float(offsets.max())
    start = max(1.5 * grid.noise, top / 100, 1e-12)
    thresholds = np.geomspace(start, max(top, start * 1.01), LEVELS)
    order = np.full(offsets.shape, LEVELS, np.int16)
    part: tuple[slice, ...] = (slice(None),) * 3
    for level in range(LEVELS - 1, -1, -1):
        # Each level lies within the next higher one, so only the bounds of that one are searched.
        joined = keep_connected(offsets[part] <= thresholds[level], grid.inside[part])
        order[part][joined] = level
        inner = ndimage.find_objects(joined.astype(np.uint8))[0]
        part = tuple(slice((p.start or 0) + q.start, (p.start or 0) + q.stop) for p, q in zip(part, inner, strict=True))
    return order, thresholds


def _scores(order: NDArray[np.int16], grid: Grid) -> NDArray[np.float64]:
    """Return for each level the difference between the region and the shell around it, relative to their spread."""
    values = grid.values.astype(np.float64)
    powers = (None, values, values**2)
    shell = ndimage.minimum_filter(order, 3)
    count, total, square = (_sum_up_to(order, weights) for weights in powers)
    # The shell is region and shell together minus the region, which needs no mask for each level.
    around, total_around, square_around = (
        _sum_up_to(shell, weights) - below for weights, below in zip(powers, (count, total, square), strict=True)
    )
    size, ring = np.maximum(count, 1), np.maximum(around, 1)
    inner = np.maximum(square / size - (total / size) ** 2, 0) + grid.noise**2
    outer = np.maximum(square_around / ring - (total_around / ring) ** 2, 0)
    step = np.abs(total_around / ring - total / size) / np.sqrt(inner + 0.25 * outer + 1e-12)
    faces = np.ones(order.shape, bool)
    faces[tuple(slice(1, -1) if n > 2 else slice(None) for n in order.shape)] = False
    contact = _sum_up_to(np.where(faces, order, LEVELS), None)
    # Small specks of noise, and regions cut off by the sides of the grid, can have a high contrast by chance.
    scores: NDArray[np.float64] = step * count / (count + 30.0) * np.where(around > 8, around / (ring + contact), 0)
    return scores


def _sum_up_to(order: NDArray[np.int16], weights: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return for each level the sum of the weights over its cells and those of all lower levels."""
    flat = None if weights is None else weights.ravel()
    return np.cumsum(np.bincount(order.ravel(), flat, LEVELS + 1)[:LEVELS]).astype(np.float64)


def _split(region: Bool, grid: Grid) -> Bool:
    """Return the part of a region that belongs to its foreground prompts, separated at narrow places."""
    depth = ndimage.distance_transform_edt(region)
    edges = ndimage.gaussian_gradient_magnitude(grid.values, 0.7)
    edges = np.minimum(edges / (np.percentile(edges[region], 95) + 1e-12), 1)
    # The depth shows narrow places, and edges show where two objects touch without a narrow place.
    cost = edges - 2.0 * depth / depth.max()
    marks = np.where(grid.inside, 1, np.where(grid.outside, 2, 0))
    part: Bool = watershed(cost, marks, mask=region) == 1  # type: ignore[no-untyped-call]
    return part


def _refine_border(candidate: Candidate) -> Candidate:
    """Return the candidate with its border moved to where the image crosses the border intensities."""
    grid, region = candidate.grid, candidate.region
    excluded = grid.outside | candidate.excluded
    for _ in range(2 if candidate.score > 0 else 0):
        middle, brighter = border_intensities(region, grid, candidate.tolerance)
        band = ndimage.binary_dilation(region) & ((grid.values > middle) == brighter)
        region = keep_connected((band & ~excluded) | grid.inside, grid.inside)
    return replace(candidate, region=region)


def _touches_side(candidate: Candidate, shape: tuple[int, ...]) -> bool:
    """Return whether a region touches a side of its grid that is not a side of the image."""
    grid = candidate.grid
    for axis in range(3):
        ends = np.asarray(candidate.region.any(tuple(k for k in range(3) if k != axis)))
        if (ends[0] and grid.low[axis] > 0) or (ends[-1] and grid.high[axis] < shape[axis]):
            return True
    return False
