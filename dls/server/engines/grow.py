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
REACHES = (20, 48, 112, 320)
# Most voxels of a working grid: 64^3 labels in 3.5 ms, so all levels take about 0.1 s.
BUDGET = 64**3
LEVELS = 28
ENOUGH = 2.0
# A border lies at most this many tolerances from the values inside.
CAP = 1.0


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


@dataclass(frozen=True)
class Grid:
    """A smoothed, perhaps coarser, copy of the image around the prompts."""

    low: Ints
    high: Ints
    step: Ints
    values: Floats
    noise: float
    inside: Bools
    outside: Bools


@dataclass(frozen=True)
class Found:
    """A region on a grid, its score and tolerance, and what outside prompts took of it."""

    grid: Grid
    score: float
    tolerance: float
    region: Bools
    taken: Bools


def segment(volume: Floats, spacing: Vector, prompts: Sequence[Prompt]) -> tuple[Box, NDArray[np.uint8]] | None:
    """Return the box and the 0/1 crop of the object the prompts mean, None where there is none."""
    seeds = _seeds(prompts, np.array(volume.shape))
    if not len(seeds.inside):
        return None
    best: Found | None = None
    cut = True
    for grid in _grids(volume, spacing, seeds):
        found = _grow(grid, seeds)
        # A wider look at a cut-off region is coarser and scores less; a closed one must be beaten well.
        if best is None or found.score > (0.6 if cut else 1.3) * best.score:
            best, cut = found, _touches(found, volume.shape)
        if best.score >= ENOUGH and not cut:
            break
    assert best is not None
    return _finish(volume, spacing, seeds, best)


def _seeds(prompts: Sequence[Prompt], shape: Ints) -> Seeds:
    """Return the voxels of all prompts, a later one winning where two overlap."""
    owner: dict[bool, Ints] = {True: np.empty(0, np.int64), False: np.empty(0, np.int64)}
    samples: list[Ints] = []
    beside = [np.empty((0, 3), np.int64)]
    for prompt in prompts:
        drawn = np.argwhere(prompt.mask) + np.array(prompt.origin)
        drawn = drawn[((drawn >= 0) & (drawn < shape)).all(1)]
        if not len(drawn):
            continue
        flat = np.ravel_multi_index(tuple(drawn.T), tuple(shape)).astype(np.int64)
        owner[prompt.foreground] = np.union1d(owner[prompt.foreground], flat)
        owner[not prompt.foreground] = np.setdiff1d(owner[not prompt.foreground], flat)
        if prompt.foreground:
            samples.append(_core(drawn) if prompt.kind == "lasso" else drawn)
        if prompt.foreground and prompt.kind == "lasso":
            beside.append(_ring(drawn, shape))
    near = np.concatenate(beside)
    flat_near = np.ravel_multi_index(tuple(near.T), tuple(shape)).astype(np.int64)
    near = near[~np.isin(flat_near, owner[True])]
    inside, outside = (np.stack(np.unravel_index(owner[k], tuple(shape)), 1) for k in (True, False))
    return Seeds(inside, outside, near, samples)


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
    blank = np.zeros(values.shape, bool)
    grid = Grid(low, high, step, values, noise, blank, blank)
    inside = _mark(grid, seeds.inside)
    outside = _mark(grid, np.concatenate([seeds.outside, seeds.beside])) & ~inside
    return replace(grid, inside=inside, outside=outside)


def _mark(grid: Grid, voxels: Ints) -> Bools:
    """Return the cells of a grid that hold any of the voxels."""
    mark = np.zeros(grid.values.shape, bool)
    local = voxels[((voxels >= grid.low) & (voxels < grid.high)).all(1)] - grid.low
    mark[tuple((local // grid.step).T)] = True
    return mark


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


def _grow(grid: Grid, seeds: Seeds) -> Found:
    """Return the region of the strokes and the first click, then of the clicks it left far out too."""
    first = 1 + max((k for k, one in enumerate(seeds.samples) if len(one) > 1), default=0)
    found = _best(grid, _centres(grid, seeds.samples[:first]))
    if first < len(seeds.samples):
        anchors = _mark(grid, np.concatenate(seeds.samples[:first])) & grid.inside
        grown = _joined(found.region, anchors)
        missed = [one for one in seeds.samples[first:] if not _near(one, grown, grid)]
        if missed:
            found = _best(grid, _centres(grid, seeds.samples[:first] + missed))
    return _local(found)


def _near(voxels: Ints, region: Bools, grid: Grid) -> bool:
    """Return whether a click is within 2 voxels of a region: a nudge of its border, whose value is mixed."""
    at = (voxels[0] - grid.low) // grid.step
    return bool(region[tuple(slice(max(0, k - 2), k + 3) for k in at)].any())


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
            return int(level), end - 1
    return 0, 0


def _flood(offsets: Floats, grid: Grid) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return for each voxel the first tolerance level that joins it to an inside prompt."""
    top = float(offsets.max())
    start = max(1.5 * grid.noise, top / 100, 1e-12)
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


def _scores(order: NDArray[np.int16], grid: Grid) -> NDArray[np.float64]:
    """Return per level how far the shell lies from the region against the spread of both."""
    values = grid.values.astype(np.float64)
    powers = (None, values, values**2)
    shell = ndimage.minimum_filter(order, 3)
    count, total, square = (_upto(order, w) for w in powers)
    # Region and shell together, less the region: all levels at once, no mask for each.
    around, total_around, square_around = (_upto(shell, w) - x for w, x in zip(powers, (count, total, square)))
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


def _local(found: Found) -> Found:
    """Return the find with its border moved to where the image crosses the local middle."""
    grid, region = found.grid, found.region
    barred = grid.outside | found.taken
    for _ in range(2 if found.score > 0 else 0):
        middle, brighter = _middle(region, grid, found.tolerance)
        band = ndimage.binary_dilation(region) & ((grid.values > middle) == brighter)
        region = _joined((band & ~barred) | grid.inside, grid.inside)
    return replace(found, region=region)


def _middle(region: Bools, grid: Grid, tolerance: float) -> tuple[Floats, Bools]:
    """Return the values midway between either side of the border, and where inside is the brighter."""
    inner, outer = _sides(region, grid)
    # What lies outside may be several tissues: half way to the darkest would take in the nearest.
    half = np.clip((outer - inner) / 2, -CAP * tolerance, CAP * tolerance)
    return inner + half, inner > outer


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


def _touches(found: Found, shape: tuple[int, ...]) -> bool:
    """Return whether a region meets a side of its grid that is not a side of the image."""
    grid = found.grid
    for axis in range(3):
        ends = found.region.any(tuple(k for k in range(3) if k != axis))
        if (ends[0] and grid.low[axis] > 0) or (ends[-1] and grid.high[axis] < shape[axis]):
            return True
    return False


def _finish(volume: Floats, spacing: Vector, seeds: Seeds, found: Found) -> tuple[Box, NDArray[np.uint8]]:
    """Return the region of a grid with its border redrawn at full resolution."""
    whole, part = found.grid, _margin(found.region)
    step = whole.step
    low = whole.low + np.array([s.start for s in part]) * step
    high = np.minimum(whole.low + np.array([s.stop for s in part]) * step, whole.high)
    grid = replace(whole, values=whole.values[part], inside=whole.inside[part])
    region, barred = found.region[part], (found.taken | whole.outside)[part]
    middle, brighter = _middle(region, grid, found.tolerance)
    contrast = float(np.median(2 * np.abs(middle - grid.values)[region]))
    crop = volume[tuple(slice(a, b) for a, b in zip(low, high))]
    values = _smoothed(crop, np.array(spacing), contrast)
    bright = values > _enlarge(middle, step, crop.shape, smooth=True)
    core = ndimage.binary_erosion(region, border_value=1)
    band = ndimage.binary_dilation(region) & ~barred
    full = bright == _enlarge(brighter, step, crop.shape)
    full &= _enlarge(band, step, crop.shape) & (found.score > 0)
    return _drawn(full | _enlarge(core, step, crop.shape), low, high, seeds)


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
    for axis in range(3):
        if step[axis] > 1:
            coarse = np.repeat(coarse, step[axis], axis)
    fine = coarse[tuple(slice(0, n) for n in shape)]
    # Blocks averaged over a block are nearly linear between centres, in a tenth of the time of zoom.
    return ndimage.uniform_filter(fine, tuple(step)) if smooth and (step > 1).any() else fine
