"""What moves over a loan: bytes, open connections and refused names, for any thread to read."""

from __future__ import annotations

import threading
import time
from collections import Counter


class Traffic:
    """Counts of one loan."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._unreachable: dict[str, str] = {}
        self._open = 0
        self._last_moved = time.monotonic()

    def moved(self, name: str, received: int = 0) -> None:
        """Count bytes that came for the host from a name; 0 for some that the host sent."""
        with self._lock:
            self._received[name] += received
            self._last_moved = time.monotonic()

    def refused(self, name: str) -> None:
        """Count a request for a name that is not lent."""
        with self._lock:
            self._refused[name[:200]] += 1

    def unreachable(self, name: str, reason: str) -> None:
        """Note why this computer does not reach a name."""
        with self._lock:
            self._unreachable[name] = reason

    def opened(self, change: int) -> None:
        """Count a connection that was opened (1) or closed (-1)."""
        with self._lock:
            self._open += change

    @property
    def received(self) -> int:
        """Bytes that have come for the host so far."""
        with self._lock:
            return sum(self._received.values())

    @property
    def received_from(self) -> dict[str, int]:
        """Bytes that have come for the host so far, by the name they came from."""
        with self._lock:
            return dict(self._received)

    @property
    def refused_names(self) -> dict[str, int]:
        """The names that were refused, and how often."""
        with self._lock:
            return dict(self._refused)

    @property
    def unreachable_names(self) -> dict[str, str]:
        """The names that this computer did not reach, each with a sentence that says why."""
        with self._lock:
            return dict(self._unreachable)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        with self._lock:
            return self._open

    @property
    def silent_for(self) -> float:
        """Seconds since a byte moved last, in either direction."""
        with self._lock:
            return time.monotonic() - self._last_moved
