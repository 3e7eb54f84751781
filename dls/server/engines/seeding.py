"""The same random numbers for every prediction of nnInteractive, so that a replay gives the same mask."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np


def seed_prediction() -> None:
    """Make the next prediction choose its patches as it will in a replay.

    When a prediction zooms out, the library samples the centers of the patches that it refines with numpy's global
    generator (`random_sampling_fallback`), so that without a seed every replay gives another mask.
    """
    np.random.seed(0)


class SeededExecutor(Executor):
    """Runs the native API's predictions on the pool, each with the same random numbers."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the work on the pool."""

        def run() -> Any:
            seed_prediction()
            return work(*args, **kwargs)

        return self._pool.submit(run)
