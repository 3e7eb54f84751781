"""The one door to blocking work: the event loop never computes, inflates or waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CODEC_THREADS = 4
"""Bodies parsed and masks encoded at once; the libraries that do it release the interpreter lock."""


class Workers:
    """Two pools: one for bytes, one for the engine, so that an upload never waits for a prediction."""

    def __init__(self, engine_threads: int) -> None:
        self._codec = ThreadPoolExecutor(CODEC_THREADS, "dls-codec")
        self._engine = ThreadPoolExecutor(engine_threads, "dls-engine")

    async def codec(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work on bytes."""
        return await asyncio.get_running_loop().run_in_executor(self._codec, lambda: work(*args, **kwargs))

    async def engine(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the engine's work: first come, first served."""
        return await asyncio.get_running_loop().run_in_executor(self._engine, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Wait for the work that runs; drop what has not begun."""
        self._codec.shutdown(cancel_futures=True)
        self._engine.shutdown(cancel_futures=True)
