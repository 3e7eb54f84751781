"""The engine's process as the server sees it: calls, answers, pings, and its end.

What goes through the pipe, `messages` describes; `worker` is the other end.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
import time
from concurrent import futures
from concurrent.futures import Future
from typing import Any

from dls.errors import EngineLost
from dls.server.engines.base import ReportProgress
from dls.server.engines.messages import DONE, FAILED, LOST, PING, PROGRESS, QUIT
from dls.server.options import EngineOptions
from dls.server.spawn import EngineChild

PING_SECONDS = 5.0
"""Seconds between two pings of the process."""
SILENT_SECONDS = 60.0
"""Limit of silence after which the process counts as hung: some libraries hold the interpreter lock for seconds."""
SILENT_SECONDS_LOADING = 600.0
"""Limit of silence while the engine loads: importing torch from a slow disk can hold the interpreter lock."""
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
                lost = EngineLost(self._failure)
                lost.was_sent = False
                raise lost
            number = next(self._numbers)
            self._pending[number] = answer
        try:
            self._send(number, command, arguments)
        except OSError:
            self._fail(self._describe_end())
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
