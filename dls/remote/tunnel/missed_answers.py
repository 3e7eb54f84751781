"""Answers that official clients did not get, by lease.

Only the box of the mask that a prompt changed travels, and the client pastes it. So a client that misses an answer goes
on with a mask that is wrong there, until a later answer brings that box too: MISSED_HEADER tells the server of it.
"""

from __future__ import annotations

import threading

MAX_LEASES = 256
"""Number of leases beyond which the one unused for longest is forgotten: every user here may use the port."""
MAX_MISSED = 16
"""Number of missed answers of one lease that are told apart."""

EARLIER = "earlier"
"""Stands for all requests of a lease from before it is known here: an earlier `dls connect` may have lost an answer."""


class MissedAnswers:
    """Remembers which requests of which lease have no delivered answer."""

    def __init__(self) -> None:
        self._leases: dict[bytes, dict[str, bool]] = {}
        """By lease the requests, the oldest first, and whether the local port waits for their answers no longer."""
        self._lock = threading.Lock()

    def begin(self, lease: bytes, name: str) -> tuple[bool, frozenset[str]]:
        """Note a request before it is sent.

        Returns whether its client misses an answer, and the requests whose boxes the answer to this one will bring: not
        those under way, which the server may come to later than to this one.
        """
        with self._lock:
            earlier = dict(self._leases.get(lease, {EARLIER: True} if lease else {}))
            self._note(lease, name, False)
        return bool(earlier), frozenset(each for each, is_over in earlier.items() if is_over)

    def keep(self, lease: bytes, name: str) -> None:
        """Note that the answer to a request was not delivered."""
        with self._lock:
            self._note(lease, name, True)

    def _note(self, lease: bytes, name: str, is_over: bool) -> None:
        if not lease:
            return
        names = self._leases.pop(lease, {EARLIER: True})
        self._leases[lease] = names
        names[name] = is_over
        if len(names) > MAX_MISSED:
            del names[next(iter(names))]
        if len(self._leases) > MAX_LEASES:
            del self._leases[next(iter(self._leases))]

    def forget(self, lease: bytes, *delivered: str) -> None:
        """Forget requests whose answers were delivered, or that changed nothing."""
        with self._lock:
            names = self._leases.get(lease, {})
            for name in delivered:
                names.pop(name, None)
