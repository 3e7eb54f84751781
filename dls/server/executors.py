"""Run blocking work on threads, so that the event loop never computes, inflates or waits.

Only this module of the HTTP side hands work to a thread pool; a test searches the others for it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

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


def start_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread; raises MemoryError where the system allows this process no more memory or threads."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise MemoryError(str(error)) from error
    return thread


def timed(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Run work, and return its result and the seconds that it took, without those that it waited for a thread."""
    started = time.monotonic()
    result = work(*args, **kwargs)
    return result, time.monotonic() - started


class SerialWorker:
    """Runs work in the order submitted on one thread, so that one core writes while another inflates.

    The first `submit` starts the thread.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[Callable[[], object], Future[Any]] | None] = queue.Queue(MAX_PENDING)
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run work on the thread, soon; waits while `MAX_PENDING` pieces are pending. Raises what earlier work raised.

        The future gives the work's result, or what an earlier piece raised.
        """
        if self._error is not None:
            raise self._error
        if self._thread is None:
            self._thread = start_thread(self._run, "dls-serial")
        future: Future[T] = Future()
        self._queue.put((lambda: work(*args, **kwargs), future))
        return future

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, future = item
            if not future.set_running_or_notify_cancel():
                continue  # nobody waits for it any more, nor for what comes after it
            try:
                if self._error is not None:
                    raise self._error
                future.set_result(work())
            except BaseException as error:
                self._error = error
                future.set_exception(error)

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
        self._engine = ThreadPoolExecutor(engine_threads, "dls-engine")

    async def codec(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that parses, compresses, reads or writes bytes."""
        return await asyncio.get_running_loop().run_in_executor(self._codec, lambda: work(*args, **kwargs))

    async def engine(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the engine's work, first come, first served: a session submits at most one prompt at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._engine, lambda: work(*args, **kwargs))

    async def prepare(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that prepares an image or gives its memory back."""
        return await asyncio.get_running_loop().run_in_executor(self._prepare, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Wait for the work that runs, and drop the work that has not begun."""
        for pool in (self._codec, self._prepare, self._engine):
            pool.shutdown(cancel_futures=True)
