"""An engine in a process of its own: when that process dies or hangs, the server survives and starts another one.

This is the server's side; `worker` is the other one. Images and masks are in shared memory, and everything else goes
through a pipe, whose content `messages` describes.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future
from typing import Any

from dls.errors import EngineLost
from dls.server import spawn
from dls.server.engines.base import Engine, Progress, ReportProgress, Segmentation
from dls.server.engines.messages import DONE, FAILED, LOST, PING, PROGRESS, QUIT
from dls.server.engines.process_official import ProcessOfficial
from dls.server.options import EngineOptions
from dls.server.shared_memory import SharedBlock
from dls.server.spawn import EngineChild
from dls.server.volume import Box, Mask, Prompt, Volume

PING_SECONDS = 5.0
"""Seconds between two pings of the process."""
SILENT_SECONDS = 60.0
"""Limit of silence after which the process counts as hung: some libraries hold the interpreter lock for seconds."""
SILENT_SECONDS_LOADING = 600.0
"""Limit of silence while the engine loads: importing torch from a slow disk can hold the interpreter lock."""
HUNG_SECONDS = {"cpu": 1800.0}
"""Seconds that one prompt may take, by device."""
HUNG_SECONDS_GPU = 180.0
"""Seconds that one prompt may take on every other device."""
QUIT_SECONDS = 3.0
"""Seconds that the process gets to end before it is killed."""

log = logging.getLogger("dls.server")


class WorkerProcess:
    """Sends calls to the engine's process and waits for the results."""

    def __init__(self, child: EngineChild, report: ReportProgress) -> None:
        self._pipe, self._process = child
        self._report = report
        self._numbers = iter(range(1, 1 << 62))
        self._pending: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._last_message = time.monotonic()
        self._failure = ""
        self.silence_limit = SILENT_SECONDS_LOADING
        """Seconds without an answer after which the process counts as hung."""

    def start(self, name: str, options: EngineOptions) -> None:
        """Send the engine's name and options, then start the threads that read answers and send pings."""
        with contextlib.suppress(OSError):  # the process has ended already; the reading thread finds out why
            self._pipe.send((name, options))
        self._last_message = time.monotonic()
        threading.Thread(target=self._read_answers, name="dls-engine-answers", daemon=True).start()
        threading.Thread(target=self._ping, name="dls-engine-ping", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    def call(self, command: str, *arguments: Any, limit: float | None = None) -> Any:
        """Run a command in the process and return its result; raises what the command raised there.

        Raises EngineLost when the process ends or hangs, or takes more than `limit` seconds.
        """
        answer: Future[Any] = Future()
        with self._lock:
            if self._failure:
                raise EngineLost(self._failure)
            number = next(self._numbers)
            self._pending[number] = answer
        try:
            self._send(number, command, arguments)
        except OSError:
            self._fail("The engine's process has ended.")
        try:
            return answer.result(limit)
        except futures.TimeoutError:
            self._fail(f"The engine took more than {limit:.0f} s for one step.")
            raise EngineLost(self._failure) from None

    def _send(self, *message: Any) -> None:
        with self._send_lock:
            self._pipe.send(message)

    def _read_answers(self) -> None:
        try:
            while True:
                number, kind, value = self._pipe.recv()
                self._last_message = time.monotonic()
                if kind == PROGRESS:
                    self._report(value)
                elif kind == LOST:
                    self._failure = self._failure or value
                elif kind in (DONE, FAILED):
                    self._resolve(number, kind, value)
        except (EOFError, OSError):
            self._fail(self._describe_end())

    def _resolve(self, number: int, kind: str, value: Any) -> None:
        with self._lock:
            answer = self._pending.pop(number, None)
        if answer is None:
            return
        if kind == DONE:
            answer.set_result(value)
        else:
            answer.set_exception(value)

    def _describe_end(self) -> str:
        try:
            code = self._process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "The engine's process closed its pipe."
        if code == -9:
            return "The engine's process was killed, as happens when the machine runs out of memory."
        return f"The engine's process ended ({'signal' if code < 0 else 'status'} {abs(code)})."

    def _fail(self, reason: str) -> None:
        """Kill the process and make every pending call raise EngineLost; the first reason counts."""
        with self._lock:
            self._failure = self._failure or reason
            pending, self._pending = self._pending, {}
        self._process.kill()
        for answer in pending.values():
            answer.set_exception(EngineLost(self._failure))

    def _ping(self) -> None:
        while not self._failure:
            sent = time.monotonic()
            try:
                self._send(0, PING, ())
            except OSError:
                return
            time.sleep(PING_SECONDS)
            while not self._failure and self._last_message < sent:
                if time.monotonic() - sent > self.silence_limit:
                    self._fail(f"The engine did not answer for {self.silence_limit:.0f} s.")
                time.sleep(0.5)

    def close(self) -> None:
        """Ask the process to end, and kill it if it does not."""
        with self._lock:
            self._failure = self._failure or "The engine was closed."
        try:
            self._send(0, QUIT, ())
            self._process.wait(QUIT_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
        self._process.wait()
        self._pipe.close()


class ProcessEngine:
    """An engine whose work is done in another process; `load` starts the process, and starts a new one after a loss.

    `description` is the same engine, not loaded, from which this one takes its attributes. `child` is the first
    process, where it has been started already.
    """

    def __init__(
        self, name: str, options: EngineOptions, description: Engine, child: EngineChild | None = None
    ) -> None:
        self._name, self._options, self._description = name, options, description
        self.name, self.key, self.device = description.name, description.key, description.device
        self.notice, self.threads, self.models = description.notice, description.threads, description.models
        self._child = child
        self._process: WorkerProcess | None = None
        self._numbers = iter(range(1, 1 << 62))
        self.official: ProcessOfficial | None = None
        if description.official is not None:
            self.official = ProcessOfficial(lambda: self._started, lambda: self._prompt_limit)

    @property
    def pid(self) -> int | None:
        """Process number of the engine's process, while there is one."""
        return self._process.pid if self._process else None

    def load(self, report: ReportProgress) -> None:
        """Start a process and load the engine in it. Raises EngineError or EngineLost."""
        self.close()
        report(Progress("load", "starting the engine"))
        child, self._child = self._child or spawn.spawn_engine(self._name), None
        self._process = WorkerProcess(child, report)
        self._process.start(self._name, self._options)
        self.key, self.device, self.notice, capabilities = self._process.call("load")
        if self.official is not None:
            self.official.capabilities = capabilities
        self._process.silence_limit = SILENT_SECONDS

    @property
    def _started(self) -> WorkerProcess:
        assert self._process is not None
        return self._process

    def session_bytes(self, voxels: int) -> int:
        """Return the bytes of memory that an open image of so many voxels takes."""
        return self._description.session_bytes(voxels)

    def open(self, volume: Volume, mask: Mask | None = None) -> Segmentation:
        """Start to segment an image, in memory that both processes map."""
        process, shape = self._started, volume.geometry.shape
        image, drawn = volume.shared or _copy_to_shared_memory(volume), SharedBlock(volume.geometry.voxels)
        try:
            number = next(self._numbers)
            process.call("open", number, image.path, drawn.path, volume.geometry)
            return ProcessSegmentation(process, number, drawn.array(shape, "u1"), self._prompt_limit)
        finally:
            drawn.close()
            if image is not volume.shared:
                image.close()

    @property
    def _prompt_limit(self) -> float:
        return HUNG_SECONDS.get(self.device, HUNG_SECONDS_GPU)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


def _copy_to_shared_memory(volume: Volume) -> SharedBlock:
    block = SharedBlock(volume.data.nbytes)
    block.array(volume.data.shape, "<f4")[:] = volume.data
    return block


class ProcessSegmentation:
    """One image in the engine's process; both processes map its mask."""

    def __init__(self, process: WorkerProcess, number: int, mask: Mask, limit: float) -> None:
        self._process, self._number, self._limit = process, number, limit
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Refine the mask by the prompt; returns a box that contains every change."""
        box: Box | None = self._process.call("add", self._number, prompt, limit=self._limit)
        return box

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Add the prompts of an earlier segmentation."""
        self._process.call("replay", self._number, list(prompts), limit=self._limit * max(1, len(prompts)))

    def restore(self, mask: Mask) -> None:
        """Replace the mask; the process reads the new one from the memory that both map."""
        self.mask[:] = mask
        self._process.call("restore", self._number, limit=self._limit)

    def reset(self) -> None:
        """Remove the prompts and empty the mask."""
        self._process.call("reset", self._number, limit=self._limit)

    def close(self) -> None:
        """Free the memory in the process; if the process is gone, nothing is left to free."""
        try:
            self._process.call("close", self._number, limit=self._limit)
        except EngineLost:
            log.debug("the image was freed when its process ended")
