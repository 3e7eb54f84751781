"""The same random numbers for every prediction of nnInteractive, so that a replay gives the same mask."""

from __future__ import annotations

import numpy as np


def seed_prediction() -> None:
    """Make the next prediction choose its patches as it will in a replay.

    When a prediction zooms out, the library samples the centers of the patches that it refines with numpy's global
    generator (`random_sampling_fallback`), so that without a seed every replay gives another mask.
    """
    np.random.seed(0)
