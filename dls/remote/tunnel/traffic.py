"""What went through the local port last: for the line that tells people about it. Counts and times, nothing else."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

PROMPT = re.compile(rb"/(?:process|add)_([a-z_]+)_interaction(?:/|\?|$)")
"""In the target of a prompt, of ITK-SNAP or an official client, with its kind."""
KINDS = {"bbox": "box", "initial_seg": "mask"}
"""Kinds that the server calls otherwise when it tells of its last prompt."""


@dataclass(frozen=True)
class Answered:
    """A prompt that was answered through the local port."""

    kind: str
    seconds: float
    """Seconds from its head to the last byte of its answer, the way over the link and waits for it included."""
    at: float
    """When that was, by `time.monotonic`."""


class Traffic:
    """Counts the requests under way, and remembers the last prompt."""

    def __init__(self) -> None:
        self.last: Answered | None = None
        """The last prompt; None before the first one."""
        self.under_way = 0
        """Number of requests that are not answered yet, polls left out."""
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def counting(self, target: bytes) -> Iterator[None]:
        """Count a request while the block runs; one that ends with an exception was not answered."""
        started = time.monotonic()
        with self._lock:
            self.under_way += 1
        try:
            yield
            if match := PROMPT.search(target):
                now = time.monotonic()
                kind = match[1].decode()
                self.last = Answered(KINDS.get(kind, kind), now - started, now)
        finally:
            with self._lock:
                self.under_way -= 1
