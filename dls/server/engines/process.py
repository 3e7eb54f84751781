"""An engine in a process of its own: when that dies or hangs, the HTTP side lives on and starts another.

The HTTP side's half; `worker` is the other one. Images and masks are in shared memory, everything else goes through a
pipe: (number, name, arguments) there, (number, kind, value) back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dls.errors import EngineLost
from dls.server import spawn
from dls.server.engines.base import Engine, Segmentation, Step, Tell
from dls.server.engines.messages import DONE, FAILED, LOST, TELL
from dls.server.options import EngineOptions
from dls.server.shared_memory import Shared
from dls.server.spawn import SpawnedWorker
from dls.server.volume import Box, Mask, Prompt, Volume

PING_SECONDS = 5.0
SILENT_SECONDS = 60.0
"""Without an answer to a ping the process counts as hung: some libraries hold the interpreter lock for seconds."""
SILENT_SECONDS_LOADING = 600.0
"""The same while it loads: importing torch from a slow disk can hold the lock for minutes."""
HUNG_SECONDS = {"cpu": 1800.0}
HUNG_SECONDS_GPU = 180.0
"""For one prompt."""
QUIT_SECONDS = 3.0

log = logging.getLogger("dls.server")


class Process:
    """The engine's process and the calls that wait for its answers."""

    def __init__(self, name: str, options: EngineOptions, begun: SpawnedWorker) -> None:
        self._pipe, self._process = begun
        self._numbers = iter(range(1, 1 << 62))
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._heard = time.monotonic()
        self._why = ""
        self.silence = SILENT_SECONDS_LOADING
        """Seconds it may say nothing."""
        self.tell: Tell = lambda step: None
        with contextlib.suppress(OSError):  # it has ended already; the reader sees how
            self._pipe.send((name, options))
        threading.Thread(target=self._read, name="dls-engine-answers", daemon=True).start()
        threading.Thread(target=self._watch, name="dls-engine-watch", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def call(self, name: str, *arguments: Any, limit: float | None = None) -> Any:
        """Do something there and return what it gives; raises what it raises, or EngineLost."""
        answer: Future[Any] = Future()
        with self._lock:
            if self._why:
                raise EngineLost(self._why)
            number = next(self._numbers)
            self._waiting[number] = answer
        try:
            self._send(number, name, arguments)
        except OSError:
            self._lose("The engine's process has ended.")
        try:
            return answer.result(limit)
        except futures.TimeoutError:
            self._lose(f"The engine took more than {limit:.0f} s for one step.")
            raise EngineLost(self._why) from None

    def _send(self, *message: Any) -> None:
        with self._sending:
            self._pipe.send(message)

    def _read(self) -> None:
        try:
            while True:
                number, kind, value = self._pipe.recv()
                self._heard = time.monotonic()
                if kind == TELL:
                    self.tell(value)
                elif kind == LOST:
                    self._why = self._why or value
                elif kind in (DONE, FAILED):
                    self._answer(number, kind, value)
        except (EOFError, OSError):
            self._lose(self._how_it_ended())

    def _answer(self, number: int, kind: str, value: Any) -> None:
        with self._lock:
            waiting = self._waiting.pop(number, None)
        if waiting is None:
            return
        if kind == DONE:
            waiting.set_result(value)
        else:
            waiting.set_exception(value)

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "The engine's process closed its pipe."
        if code == -9:
            return "The engine's process was killed, as happens when the machine runs out of memory."
        return f"The engine's process ended ({'signal' if code < 0 else 'status'} {abs(code)})."

    def _lose(self, why: str) -> None:
        with self._lock:
            self._why = self._why or why
            waiting, self._waiting = self._waiting, {}
        self._process.kill()
        for answer in waiting.values():
            answer.set_exception(EngineLost(self._why))

    def _watch(self) -> None:
        while not self._why:
            asked = time.monotonic()
            try:
                self._send(0, "ping", ())
            except OSError:
                return
            time.sleep(PING_SECONDS)
            while not self._why and self._heard < asked:
                if time.monotonic() - asked > self.silence:
                    self._lose(f"The engine did not answer for {self.silence:.0f} s.")
                time.sleep(0.5)

    def close(self) -> None:
        """End the process: asked first, by closing the pipe, then killed."""
        with self._lock:
            self._why = self._why or "The engine was closed."
        try:
            self._send(0, "quit", ())
            self._process.wait(QUIT_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
        self._process.wait()
        self._pipe.close()


class ProcessEngine:
    """An engine whose work is done in a process of its own; `load` starts it, and after a loss another one.

    The first one may have been `begun` already.
    """

    def __init__(self, name: str, options: EngineOptions, facts: Engine, begun: SpawnedWorker | None = None) -> None:
        self._name, self._options, self._facts = name, options, facts
        self.name, self.key, self.device, self.notice = facts.name, facts.key, facts.device, facts.notice
        self.threads, self.models = facts.threads, facts.models
        self._begun = begun
        self._process: Process | None = None
        self._numbers = iter(range(1, 1 << 62))
        self._has_door = False

    @property
    def pid(self) -> int | None:
        """The number of the engine's process, while it has one."""
        return self._process.pid if self._process else None

    def load(self, tell: Tell) -> None:
        """Start the process and load the engine there."""
        self.close()
        tell(Step("load", "starting the engine"))
        begun, self._begun = self._begun or spawn.begin(self._name), None
        self._process = Process(self._name, self._options, begun)
        self._process.tell = tell
        self.key, self.device, self.notice, self._has_door = self._process.call("load")
        self._process.silence = SILENT_SECONDS

    def session_bytes(self, voxels: int) -> int:
        """What the engine says."""
        return self._facts.session_bytes(voxels)

    def open(self, volume: Volume, mask: Mask | None = None) -> Segmentation:
        """Start on an image, in memory that both processes see."""
        assert self._process is not None
        shape = volume.geometry.shape
        image, drawn = volume.shared or _shared(volume), Shared(volume.geometry.voxels)
        try:
            number = next(self._numbers)
            self._process.call("open", number, image.path, drawn.path, volume.geometry)
            return ProcessSegmentation(self._process, number, drawn.array(shape, "u1"), self._limit)
        finally:
            drawn.close()
            if image is not volume.shared:
                image.close()

    @property
    def _limit(self) -> float:
        return HUNG_SECONDS.get(self.device, HUNG_SECONDS_GPU)

    def native_api(self, queue: ThreadPoolExecutor) -> Any:
        """Return an application that hands requests on to the engine's own one, or None."""
        return self._pass_on if self._has_door else None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        plain = {name: scope[name] for name in ("type", "http_version", "method", "scheme", "path", "raw_path")}
        plain |= {name: scope[name] for name in ("query_string", "headers", "root_path")}
        body = await request.body()
        assert self._process is not None
        answer = await _in_thread(self._process, "door", plain, body)
        status, headers, content = answer
        response = Response(content, status)
        response.raw_headers = headers
        await response(scope, receive, send)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


async def _in_thread(process: Process, *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, lambda: process.call(*arguments))


def _shared(volume: Volume) -> Shared:
    block = Shared(volume.data.nbytes)
    block.array(volume.data.shape, "<f4")[:] = volume.data
    return block


class ProcessSegmentation:
    """One image in the engine's process; its mask is seen from both."""

    def __init__(self, process: Process, number: int, mask: Mask, limit: float) -> None:
        self._process, self._number, self._limit = process, number, limit
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Refine the mask there."""
        box: Box | None = self._process.call("add", self._number, prompt, limit=self._limit)
        return box

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Add them all there."""
        self._process.call("replay", self._number, list(prompts), limit=self._limit * max(1, len(prompts)))

    def reset(self) -> None:
        """Forget the prompts there."""
        self._process.call("reset", self._number, limit=self._limit)

    def close(self) -> None:
        """Give back the memory there; nothing is left to give back when the process is gone."""
        try:
            self._process.call("close", self._number, limit=self._limit)
        except EngineLost:
            log.debug("closed with its process")
