"""The memory that bodies of requests and large answers take on this computer, all connections together."""

from __future__ import annotations

import threading

MAX_KEPT = 2 << 30
"""Bytes of all bodies that are kept to be sent again; what comes beyond is sent once, as it comes."""


class BodyMemory:
    """Counts the bytes of the bodies that are kept: every user of this computer may use the local port."""

    def __init__(self, limit: int = MAX_KEPT) -> None:
        self._left = limit
        self._lock = threading.Lock()

    def reserve(self, size: int) -> bool:
        """Take so many bytes, or return False where there are not so many."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def release(self, size: int) -> None:
        """Give back bytes that were reserved."""
        with self._lock:
            self._left += size


class Reservation:
    """Memory that grows with what arrives, until it is given back by another thread perhaps."""

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self._size = 0
        self._is_over = False
        self._lock = threading.Lock()

    def grow_to(self, size: int) -> bool:
        """Take what is missing to so many bytes, or return False where there is not so much, or no use for it."""
        with self._lock:
            more = max(0, size - self._size)
            if self._is_over or not self._memory.reserve(more):
                return False
            self._size += more
            return True

    def release(self) -> None:
        """Give everything back; nothing can be taken any more."""
        with self._lock:
            self._is_over = True
            self._memory.release(self._size)
            self._size = 0
