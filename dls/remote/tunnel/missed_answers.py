"""Answers that official clients did not get, by lease.

Only the box of the mask that a prompt changed travels, and the client pastes it. So a client that misses an answer goes
on with a mask that is wrong there, until a later answer brings that box too: MISSED_HEADER tells the server of it.
"""

from __future__ import annotations

import threading

MAX_LEASES = 256
"""Number of leases beyond which the longest known one is forgotten: every user of this computer may use the port."""
MAX_MISSED = 16
"""Number of missed answers of one lease that are told apart."""


class MissedAnswers:
    """Remembers which requests of which lease have no delivered answer."""

    def __init__(self) -> None:
        self._leases: dict[bytes, dict[str, None]] = {}
        self._lock = threading.Lock()

    def begin(self, lease: bytes, name: str) -> frozenset[str]:
        """Note a request before it is sent, and return the earlier ones of its lease that have no delivered answer."""
        if not lease:
            return frozenset()
        with self._lock:
            names = self._leases.pop(lease, {})
            missed = frozenset(names)
            names[name] = None
            if len(names) > MAX_MISSED:
                del names[next(iter(names))]
            self._leases[lease] = names
            if len(self._leases) > MAX_LEASES:
                del self._leases[next(iter(self._leases))]
            return missed

    def forget(self, lease: bytes, *delivered: str) -> None:
        """Forget requests whose answers were delivered, or that changed nothing."""
        with self._lock:
            names = self._leases.get(lease, {})
            for name in delivered:
                names.pop(name, None)
            if not names:
                self._leases.pop(lease, None)

    def add(self, lease: bytes, name: str) -> None:
        """Note that the answer to a request could not be delivered after all."""
        self.begin(lease, name)
