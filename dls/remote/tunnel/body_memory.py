"""The memory that request bodies take on this computer, all connections together."""

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
