"""Asks by itself what a viewer asks by itself, but more often, beside the clicks.

ITK-SNAP polls `/status`, and a poll that fails makes its next click fail. Clients of nnInteractive's own protocol send
heartbeats, and some of them end their session at one that fails.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

POLL_SECONDS = 0.2
"""Seconds from one poll to the next."""
PATIENCE = 6.0
"""Seconds after which a poll without an answer counts as failed: ITK-SNAP's clicks wait behind it."""


class Polls(threading.Thread):
    """Polls the local port until it is told to end, and adds up the time in which polls failed."""

    def __init__(self, port: int, request: bytes) -> None:
        super().__init__(name="polls", daemon=True)
        self.failing = 0.0
        """Seconds in which a poll failed, each counted until the next one."""
        self._port = port
        self._request = request
        self._ended = threading.Event()
        self._polling = threading.Lock()

    def run(self) -> None:
        """Poll until `end` is called."""
        while not self._ended.is_set():
            with self._polling:
                started = time.monotonic()
                succeeded = self._poll()
                self._ended.wait(max(0.0, started + POLL_SECONDS - time.monotonic()))
                if not succeeded:
                    self.failing += time.monotonic() - started

    def _poll(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock, sock.makefile("rb") as answer:
                sock.sendall(self._request)
                return answer.readline().startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Make no poll meanwhile, as while the laptop is asleep."""
        with self._polling:
            yield

    def end(self) -> None:
        """Make no further poll, and wait for the last one."""
        self._ended.set()
        self.join()


@contextlib.contextmanager
def polling(port: int, request: bytes) -> Iterator[Polls]:
    """Send the request to the port again and again until the context is left."""
    polls = Polls(port, request)
    polls.start()
    try:
        yield polls
    finally:
        polls.end()
