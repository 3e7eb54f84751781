"""The voxels that the prompts mark as inside or outside the object, and those around a lasso."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dls.server.engines.region.lasso import Ints, core_voxels, ring_voxels
from dls.server.volume import LASSO, Prompt


@dataclass(frozen=True)
class Seeds:
    """The voxels of all prompts; every array has shape (N, 3) in the order (z, y, x)."""

    inside: Ints
    """Voxels drawn as foreground."""
    outside: Ints
    """Voxels drawn as background."""
    rings: Ints
    """Voxels around the lassos, which are assumed to be background."""
    samples: list[Ints]
    """The voxels of each foreground prompt whose intensities the object has."""
    lassos: list[Ints]
    """The voxels of each foreground lasso."""


def collect_seeds(prompts: Sequence[Prompt], shape: Ints) -> Seeds:
    """Return the voxels of all prompts; where two overlap, the later one counts."""
    owner: dict[bool, Ints] = {True: np.empty(0, np.int64), False: np.empty(0, np.int64)}
    samples: list[Ints] = []
    lassos: list[Ints] = []
    rings = [np.empty((0, 3), np.int64)]
    for prompt in prompts:
        drawn = np.argwhere(prompt.mask) + np.array(prompt.origin)
        drawn = drawn[((drawn >= 0) & (drawn < shape)).all(1)]
        if not len(drawn):
            continue
        flat = np.ravel_multi_index(tuple(drawn.T), tuple(shape)).astype(np.int64)
        owner[prompt.foreground] = np.union1d(owner[prompt.foreground], flat)
        owner[not prompt.foreground] = np.setdiff1d(owner[not prompt.foreground], flat)
        if prompt.foreground:
            samples.append(core_voxels(drawn) if prompt.kind == LASSO else drawn)
        if prompt.foreground and prompt.kind == LASSO:
            lassos.append(drawn)
            rings.append(ring_voxels(drawn, shape))
    ring = np.concatenate(rings)
    flat_ring = np.ravel_multi_index(tuple(ring.T), tuple(shape)).astype(np.int64)
    ring = ring[~np.isin(flat_ring, owner[True])]
    inside, outside = (np.stack(np.unravel_index(owner[k], tuple(shape)), 1) for k in (True, False))
    return Seeds(inside, outside, ring, samples, lassos)
