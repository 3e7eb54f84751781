"""Run blocking work on threads, so that the event loop never computes, inflates or waits.

Only this module of the HTTP side hands work to a thread pool; a test searches the others for it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CODEC_THREADS = 4
"""Number of bodies parsed and masks encoded at once; the libraries used for it release the interpreter lock."""
PREPARE_THREADS = 2
"""Number of images prepared at once; each occupies a core and reads the whole volume."""
MAX_PENDING = 8
"""Number of pieces of work that a `SerialWorker` holds before `submit` waits."""


async def run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking work on asyncio's default pool: for work that must not wait in a pool of `Executors`."""
    return await asyncio.get_running_loop().run_in_executor(None, lambda: work(*args, **kwargs))


class SerialWorker:
    """Runs work in the order submitted on one thread, so that one core writes while another inflates.

    The first `submit` starts the thread.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(MAX_PENDING)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def is_full(self) -> bool:
        """Whether `submit` would wait."""
        return self._queue.full()

    def submit(self, work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run work on the thread, soon; raises what earlier work raised."""
        if self._error is not None:
            raise self._error
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dls-serial", daemon=True)
            self._thread.start()
        self._queue.put(lambda: work(*args, **kwargs))

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._error is None:
                try:
                    work()
                except BaseException as error:
                    self._error = error

    def close(self) -> None:
        """Wait until all work has run, and end the thread."""
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def finish(self) -> None:
        """Wait until all work has run; raises what the work raised."""
        self.close()
        if self._error is not None:
            raise self._error


class Executors:
    """Three thread pools, so that bytes, images being prepared and prompts do not wait for one another."""

    def __init__(self, engine_threads: int) -> None:
        self._codec = ThreadPoolExecutor(CODEC_THREADS, "dls-codec")
        self._prepare = ThreadPoolExecutor(PREPARE_THREADS, "dls-prepare")
        self.engine_pool = ThreadPoolExecutor(engine_threads, "dls-engine")
        """The pool on which `engine` runs its work."""

    async def codec(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that parses, compresses, reads or writes bytes."""
        return await asyncio.get_running_loop().run_in_executor(self._codec, lambda: work(*args, **kwargs))

    async def engine(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the engine's work, first come, first served: a session submits at most one prompt at a time."""
        return await asyncio.get_running_loop().run_in_executor(self.engine_pool, lambda: work(*args, **kwargs))

    async def prepare(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that prepares an image or gives its memory back."""
        return await asyncio.get_running_loop().run_in_executor(self._prepare, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Wait for the work that runs, and drop the work that has not begun."""
        for pool in (self._codec, self._prepare, self.engine_pool):
            pool.shutdown(cancel_futures=True)
