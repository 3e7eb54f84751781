"""Segment one object of a 3-D image from a few drawn prompts, without any learned weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Vector = tuple[float, float, float]

# Half-widths of the region of interest, in steps of the finest spacing.
REACHES = (20, 40, 80, 160, 320)
# Most voxels of a working grid: 64^3 labels in 3.5 ms, so all levels take about 0.1 s.
BUDGET = 64**3
LEVELS = 28
ENOUGH = 6.0


@dataclass(frozen=True)
class Prompt:
    """One drawn hint: which voxels, and whether they are inside the object."""

    kind: Literal["point", "scribble", "lasso"]
    foreground: bool
    origin: tuple[int, int, int]
    mask: Bools


@dataclass(frozen=True)
class Seeds:
    """The drawn voxels (N, 3) inside, outside, and those thought outside next to a lasso."""

    inside: Ints
    outside: Ints
    beside: Ints
    samples: list[Ints]
    against: list[Ints]


@dataclass
class Grid:
    """A smoothed, perhaps coarser, copy of the image around the prompts."""

    low: Ints
    high: Ints
    step: Ints
    values: Floats
    noise: float
    sigma: Vector
    inside: Bools
    outside: Bools


@dataclass(frozen=True)
class Found:
    """A region on a grid, how well it stands out, and what outside prompts took of it."""

    grid: Grid
    score: float
    region: Bools
    taken: Bools


def segment(volume: Floats, spacing: Vector, prompts: Sequence[Prompt]) -> tuple[Box, NDArray[np.uint8]] | None:
    """Return the box and the 0/1 crop of the object the prompts mean, None where there is none."""
    seeds = _seeds(prompts, np.array(volume.shape))
    if not len(seeds.inside):
        return None
    best: Found | None = None
    for grid in _grids(volume, spacing, seeds):
        found = Found(grid, *_grow(grid, seeds))
        if best is None or found.score > (0.6 if _touches(best.region, best.grid, volume.shape) else 1.0) * best.score:
            best = found
        if best.score >= ENOUGH and not _touches(best.region, best.grid, volume.shape):
            break
    assert best is not None
    return _finish(volume, spacing, seeds, best)


def _seeds(prompts: Sequence[Prompt], shape: Ints) -> Seeds:
    """Return the voxels of all prompts, a later one winning where two overlap."""
    owner: dict[bool, Ints] = {True: np.empty(0, np.int64), False: np.empty(0, np.int64)}
    samples: dict[bool, list[Ints]] = {True: [], False: []}
    beside = [np.empty((0, 3), np.int64)]
    for prompt in prompts:
        drawn = np.argwhere(prompt.mask) + np.array(prompt.origin)
        drawn = drawn[((drawn >= 0) & (drawn < shape)).all(1)]
        if not len(drawn):
            continue
        flat = np.ravel_multi_index(tuple(drawn.T), tuple(shape)).astype(np.int64)
        owner[prompt.foreground] = np.union1d(owner[prompt.foreground], flat)
        owner[not prompt.foreground] = np.setdiff1d(owner[not prompt.foreground], flat)
        samples[prompt.foreground].append(_core(drawn) if prompt.kind == "lasso" else drawn)
        if prompt.kind == "lasso" and prompt.foreground:
            beside.append(_ring(drawn, shape))
    near = np.concatenate(beside)
    flat_near = np.ravel_multi_index(tuple(near.T), tuple(shape)).astype(np.int64)
    near = near[~np.isin(flat_near, owner[True])]
    inside, outside = (np.stack(np.unravel_index(owner[k], tuple(shape)), 1) for k in (True, False))
    return Seeds(inside, outside, near, samples[True], samples[False])


def _plane(drawn: Ints, pad: int) -> tuple[Bools, Ints]:
    """Return the drawn voxels as a padded mask, thin axes left thin, and its origin."""
    extent = drawn.max(0) - drawn.min(0)
    pads = np.where(extent > 0, pad, 0)
    low = drawn.min(0) - pads
    mask = np.zeros(tuple(extent + 1 + 2 * pads), bool)
    mask[tuple((drawn - low).T)] = True
    return mask, low


def _core(drawn: Ints) -> Ints:
    """Return the deeper half of a lasso, which a rough outline is sure to hold."""
    mask, low = _plane(drawn, 1)
    depth = ndimage.distance_transform_edt(mask.squeeze()).reshape(mask.shape)
    return np.argwhere(depth >= 0.4 * depth.max()) + low


def _ring(drawn: Ints, shape: Ints) -> Ints:
    """Return the voxels in the slice of a lasso that lie clear of its outline."""
    mask, low = _plane(drawn, 8)
    size = np.sqrt(mask.sum())
    away = ndimage.distance_transform_edt(~mask.squeeze()).reshape(mask.shape)
    margin = 2.0 + 0.04 * size
    ring = np.argwhere((away > margin) & (away <= margin + 2.5)) + low
    return ring[((ring >= 0) & (ring < shape)).all(1)]


def _grids(volume: Floats, spacing: Vector, seeds: Seeds) -> Iterator[Grid]:
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


def _grid(volume: Floats, size: NDArray[np.float64], seeds: Seeds, low: Ints, high: Ints) -> Grid:
    """Return the working grid of a box, its steps as even in mm as voxels allow."""
    step = np.ones(3, np.int64)
    while np.prod(np.ceil((high - low) / step)) > BUDGET:
        step[np.argmin(np.where(high - low > step, step * size, np.inf))] += 1
    crop = volume[tuple(slice(a, b) for a, b in zip(low, high))]
    small = _shrink(crop, step)
    # One step of the finest axis: at 1 voxel, noise falls 6.7-fold and a radius of 4 keeps its contrast.
    sigma = np.clip((step * size).min() / (step * size), 0.35, 1.0)
    if (step > 1).any():
        sigma = sigma * 0.7
    values = ndimage.gaussian_filter(small, sigma, truncate=3.0)
    noise = _noise(small) * _damping(sigma)
    marks = []
    for voxels in (seeds.inside, np.concatenate([seeds.outside, seeds.beside])):
        mark = np.zeros(values.shape, bool)
        local = voxels[((voxels >= low) & (voxels < high)).all(1)] - low
        mark[tuple((local // step).T)] = True
        marks.append(mark)
    return Grid(low, high, step, values, noise, tuple(sigma), marks[0], marks[1] & ~marks[0])


def _shrink(crop: Floats, step: Ints) -> Floats:
    """Return the means of blocks of step voxels, the last block made whole by its edge."""
    if (step == 1).all():
        return crop
    padded = np.pad(crop, [(0, -n % s) for n, s in zip(crop.shape, step)], mode="edge")
    for axis, s in enumerate(step):
        if s > 1:
            split = padded.shape[:axis] + (padded.shape[axis] // s, s) + padded.shape[axis + 1 :]
            padded = padded.reshape(split).mean(axis + 1)
    return padded


def _noise(values: Floats) -> float:
    """Return the noise of an image as the middle size of its second differences."""
    best = np.inf
    for axis in range(3):
        if values.shape[axis] > 4:
            second = np.diff(values[:: max(1, len(values) // 32)] if axis else values, 2, axis)
            best = min(best, float(np.median(np.abs(second))) / (0.6745 * np.sqrt(6)))
    return best if np.isfinite(best) else 0.0


def _damping(sigma: NDArray[np.float64]) -> float:
    """Return what part of white noise a Gaussian of these widths lets through."""
    part = 1.0
    for s in sigma:
        taps = np.exp(-0.5 * (np.arange(-4, 5) / s) ** 2)
        part *= float(np.sqrt((taps**2).sum()) / taps.sum())
    return part


def _centres(grid: Grid, groups: Sequence[Ints]) -> NDArray[np.float64]:
    """Return the intensities the prompts stand for, spread marks giving a few quantiles each."""
    found = []
    for voxels in groups:
        local = voxels[((voxels >= grid.low) & (voxels < grid.high)).all(1)] - grid.low
        if len(local):
            drawn = grid.values[tuple((local // grid.step).T)]
            found.append(np.quantile(drawn, np.linspace(0.1, 0.9, 5) if len(drawn) > 4 else [0.5]))
    return np.unique(np.concatenate(found)) if found else np.empty(0)


def _offsets(values: Floats, centres: NDArray[np.float64]) -> Floats:
    """Return how far each value lies from the nearest centre."""
    after = np.searchsorted(centres, values)
    above = np.abs(values - centres[np.minimum(after, len(centres) - 1)])
    below = np.abs(values - centres[np.maximum(after - 1, 0)])
    return np.minimum(above, below).astype(np.float32)


def _grow(grid: Grid, seeds: Seeds) -> tuple[float, Bools, Bools]:
    """Return how well the best region stands out, the region, and what outside prompts took of it."""
    first = 1 + max([k for k, one in enumerate(seeds.samples) if len(one) > 1], default=0)
    score, region, taken = _best(grid, _centres(grid, seeds.samples[:first]))
    missed = [one for one in seeds.samples[first:] if _far(one, region, grid)]
    if missed:
        score, region, taken = _best(grid, _centres(grid, seeds.samples[:first] + missed))
    return score, _local(region, taken, grid), taken


def _far(voxels: Ints, region: Bools, grid: Grid) -> bool:
    """Return whether a click lies so far out of a region that it shows a new intensity, not a border."""
    at = (voxels[0] - grid.low) // grid.step
    around = tuple(slice(max(0, k - 2), k + 3) for k in at)
    grown = _joined(region, grid.inside & ~_only(at, region.shape))
    return not bool(grown[around].any())


def _only(at: Ints, shape: tuple[int, ...]) -> Bools:
    """Return a mask of one voxel."""
    mask = np.zeros(shape, bool)
    mask[tuple(at)] = True
    return mask


def _best(grid: Grid, centres: NDArray[np.float64]) -> tuple[float, Bools, Bools]:
    """Return the score and region of the best tolerance, and what outside prompts took of it."""
    offsets = _offsets(grid.values, centres)
    offsets[grid.inside] = 0
    order, thresholds = _flood(offsets, grid)
    scores = _scores(order, grid, len(thresholds))
    level = int(np.argmax(scores))
    region = order <= level
    hit = region & grid.outside
    taken = np.zeros_like(region)
    if hit.any():
        deep = ndimage.distance_transform_edt(region)[hit].max() > 2
        clear = int(order[grid.outside].min())
        if deep and clear > 0 and scores[:clear].max() > 0.3 * scores[level]:
            level = int(np.argmax(scores[:clear]))
            region = order <= level
        else:
            kept = _split(region, grid)
            region, taken = kept, region & ~kept
    return float(scores[level]), region, taken


def _flood(offsets: Floats, grid: Grid) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return for each voxel the first tolerance level that joins it to an inside prompt."""
    top = float(offsets.max())
    start = max(1.5 * grid.noise, top / 100)
    thresholds = np.geomspace(start, max(top, start * 1.01), LEVELS)
    order = np.full(offsets.shape, LEVELS, np.int16)
    part: tuple[slice, ...] = (slice(None),) * 3
    for level in range(LEVELS - 1, -1, -1):
        # Lower levels lie within higher ones, so each looks only at the bounds of the last.
        joined = _joined(offsets[part] <= thresholds[level], grid.inside[part])
        order[part][joined] = level
        inner = ndimage.find_objects(joined.astype(np.uint8))[0]
        part = tuple(slice((p.start or 0) + q.start, (p.start or 0) + q.stop) for p, q in zip(part, inner))
    return order, thresholds


def _scores(order: NDArray[np.int16], grid: Grid, count: int) -> NDArray[np.float64]:
    """Return per level how far the shell lies from the region against the region's own spread."""
    near = ndimage.minimum_filter(order, 3)
    far = near
    values = grid.values.astype(np.float64)

    def sums(levels: NDArray[np.int16], weight: NDArray[np.float64] | None) -> NDArray[np.float64]:
        flat = None if weight is None else weight.ravel()
        return np.cumsum(np.bincount(levels.ravel(), flat, count + 1)[:count])

    n, s, q = (sums(order, w) for w in (None, values, values**2))
    m, u, r = (sums(far, w) - x for w, x in ((None, n), (values, s), (values**2, q)))
    m, n = np.maximum(m, 1), np.maximum(n, 1)
    mean = s / n
    inner = np.maximum(q / n - mean**2, 0) + grid.noise**2
    shell = u / m - mean
    outer = np.maximum(r / m - (u / m) ** 2, 0)
    score: NDArray[np.float64] = np.abs(shell) / np.sqrt(inner + 0.25 * outer + 1e-12)
    faces = np.ones(order.shape, bool)
    faces[tuple(slice(1, -1) if k > 2 else slice(None) for k in order.shape)] = False
    contact = np.cumsum(np.bincount(order[faces], minlength=count + 1)[:count])
    return score * (n / (n + 30.0)) * np.where(m > 8, m / (m + contact), 0)


def _split(region: Bools, grid: Grid) -> Bools:
    """Return the part of a region that inside prompts win from outside ones, cut at its necks."""
    depth = ndimage.distance_transform_edt(region)
    edges = ndimage.gaussian_gradient_magnitude(grid.values, 0.7)
    edges = np.minimum(edges / (np.percentile(edges[region], 95) + 1e-12), 1)
    # Depth says where the neck is, edges where two touching objects meet without one.
    cost = edges - 2.0 * depth / depth.max()
    marks = np.where(grid.inside, 1, np.where(grid.outside, 2, 0))
    won: Bools = watershed(cost, marks, mask=region) == 1
    return won


def _local(region: Bools, taken: Bools, grid: Grid) -> Bools:
    """Return the region with its border moved to midway between the means on either side."""
    for _ in range(2):
        lower, upper = _sides(region, grid)
        band = ndimage.binary_dilation(region)
        moved = band & (np.abs(grid.values - lower) < np.abs(grid.values - upper)) | grid.inside
        region = _joined(moved & ~grid.outside & ~taken, grid.inside)
    return region


def _sides(region: Bools, grid: Grid) -> tuple[Floats, Floats]:
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


def _joined(region: Bools, inside: Bools) -> Bools:
    """Return the components of a region that hold an inside prompt, their holes filled."""
    labels, count = ndimage.label(region)
    keep = np.zeros(count + 1, bool)
    keep[labels[inside]] = True
    keep[0] = False
    kept: Bools = keep[labels]
    return kept


def _touches(region: Bools, grid: Grid, shape: tuple[int, ...]) -> bool:
    """Return whether a region meets a side of its grid that is not a side of the image."""
    for axis in range(3):
        ends = region.any(tuple(k for k in range(3) if k != axis))
        if ends[0] and grid.low[axis] > 0 or ends[-1] and grid.high[axis] < shape[axis]:
            return True
    return False


def _finish(volume: Floats, spacing: Vector, seeds: Seeds, found: Found) -> tuple[Box, NDArray[np.uint8]]:
    """Return the region of a grid with its border redrawn at full resolution."""
    grid, part = found.grid, _margin(found.region)
    region, taken = found.region[part], found.taken[part]
    low = grid.low + np.array([s.start for s in part]) * grid.step
    high = np.minimum(grid.low + np.array([s.stop for s in part]) * grid.step, grid.high)
    inner, outer = _sides(region, replace(grid, values=grid.values[part], inside=grid.inside[part]))
    crop = volume[tuple(slice(a, b) for a, b in zip(low, high))]
    values = _smoothed(crop, np.array(spacing), float(np.median(np.abs(inner - outer)[region])))
    middle = _enlarge((inner + outer) / 2, grid.step, crop.shape, smooth=True)
    brighter = _enlarge(inner > outer, grid.step, crop.shape)
    core = _enlarge(ndimage.binary_erosion(region, border_value=1), grid.step, crop.shape)
    band = _enlarge(ndimage.binary_dilation(region) & ~taken, grid.step, crop.shape)
    full = core | band & ((values > middle) == brighter)
    return _drawn(full, low, high, seeds)


def _drawn(full: Bools, low: Ints, high: Ints, seeds: Seeds) -> tuple[Box, NDArray[np.uint8]]:
    """Return the components of a region with the drawn voxels, those in and those out, obeyed."""
    out, inside = (v[((v >= low) & (v < high)).all(1)] - low for v in (seeds.outside, seeds.inside))
    marks = np.zeros(full.shape, bool)
    marks[tuple(inside.T)] = True
    full = full | marks
    full[tuple(out.T)] = False
    kept = _joined(full, marks)
    box = ((int(low[0]), int(high[0])), (int(low[1]), int(high[1])), (int(low[2]), int(high[2])))
    return box, kept.astype(np.uint8)


def _margin(region: Bools) -> tuple[slice, ...]:
    """Return the slices of a region's bounds and a margin that its border may move into."""
    bounds = ndimage.find_objects(region.astype(np.uint8))[0]
    return tuple(slice(max(0, s.start - 5), min(n, s.stop + 5)) for s, n in zip(bounds, region.shape))


def _smoothed(crop: Floats, spacing: NDArray[np.float64], contrast: float) -> Floats:
    """Return the image smoothed no more than its noise against the contrast asks for."""
    width = float(np.clip(2.5 * _noise(crop) / (contrast + 1e-12), 0.4, 1.0))
    sigma = np.clip(spacing.min() / spacing, 0.35, 1.0) * width
    smooth: Floats = ndimage.gaussian_filter(crop, sigma, truncate=3.0)
    return smooth


def _enlarge(coarse: NDArray[Any], step: Ints, shape: tuple[int, ...], smooth: bool = False) -> NDArray[Any]:
    """Return a coarse map at full resolution, in blocks or linearly between block centres."""
    if smooth and (step > 1).any():
        coarse = ndimage.zoom(coarse, tuple(step), order=1, mode="nearest", grid_mode=True)
    else:
        for axis in range(3):
            if step[axis] > 1:
                coarse = np.repeat(coarse, step[axis], axis)
    return coarse[tuple(slice(0, n) for n in shape)]
