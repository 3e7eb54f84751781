"""The prompts as voxels: inside, outside, and what a lasso says of its neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dls.server.engines.region.lasso import Ints, core, ring
from dls.server.volume import LASSO, Prompt


@dataclass(frozen=True)
class Seeds:
    """The drawn voxels (N, 3) inside, outside, and those thought outside next to a lasso."""

    inside: Ints
    outside: Ints
    beside: Ints
    samples: list[Ints]
    lassos: list[Ints]


def seeds_of(prompts: Sequence[Prompt], shape: Ints) -> Seeds:
    """Return the voxels of all prompts, a later one winning where two overlap."""
    owner: dict[bool, Ints] = {True: np.empty(0, np.int64), False: np.empty(0, np.int64)}
    samples: list[Ints] = []
    lassos: list[Ints] = []
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
            samples.append(core(drawn) if prompt.kind == LASSO else drawn)
        if prompt.foreground and prompt.kind == LASSO:
            lassos.append(drawn)
            beside.append(ring(drawn, shape))
    near = np.concatenate(beside)
    flat_near = np.ravel_multi_index(tuple(near.T), tuple(shape)).astype(np.int64)
    near = near[~np.isin(flat_near, owner[True])]
    inside, outside = (np.stack(np.unravel_index(owner[k], tuple(shape)), 1) for k in (True, False))
    return Seeds(inside, outside, near, samples, lassos)
