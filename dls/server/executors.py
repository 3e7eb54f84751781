"""The one door to blocking work: the event loop never computes, inflates or waits."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

PIECES_BEHIND = 8
P = ParamSpec("P")
T = TypeVar("T")

CODEC_THREADS = 4
"""Bodies parsed and masks encoded at once; the libraries that do it release the interpreter lock."""


PREPARE_THREADS = 2
"""Images prepared at once; each takes a core and passes over the whole volume."""


class SerialWorker:
    """Does work in order on a thread of its own, a few pieces behind: a core writes while another inflates."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(PIECES_BEHIND)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="dls-behind", daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """Whether `do` would wait."""
        return self._queue.full()

    def do(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do it soon; raises what earlier work raised."""
        if self._error is not None:
            raise self._error
        self._queue.put(lambda: work(*args, **kwargs))

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._error is None:
                try:
                    work()
                except BaseException as error:
                    self._error = error

    def close(self) -> None:
        """Wait until all is done."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def finish(self) -> None:
        """Wait until all is done, and raise what went wrong."""
        self.close()
        if self._error is not None:
            raise self._error


class Executors:
    """Three pools: for bytes, for images being prepared, and for prompts, so that none waits for another kind."""

    def __init__(self, engine_threads: int) -> None:
        self._codec = ThreadPoolExecutor(CODEC_THREADS, "dls-codec")
        self._prepare = ThreadPoolExecutor(PREPARE_THREADS, "dls-prepare")
        self.queue = ThreadPoolExecutor(engine_threads, "dls-engine")

    async def codec(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work on bytes."""
        return await asyncio.get_running_loop().run_in_executor(self._codec, lambda: work(*args, **kwargs))

    async def engine(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the engine's work, first come, first served: fair, since a session has one prompt in it at most."""
        return await asyncio.get_running_loop().run_in_executor(self.queue, lambda: work(*args, **kwargs))

    async def prepare(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Prepare an image."""
        return await asyncio.get_running_loop().run_in_executor(self._prepare, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Wait for the work that runs; drop what has not begun."""
        for pool in (self._codec, self._prepare, self.queue):
            pool.shutdown(cancel_futures=True)
