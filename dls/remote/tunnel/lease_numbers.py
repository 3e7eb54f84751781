"""How long leases of official clients last, as the server said it last: what a heartbeat is told meanwhile."""

from __future__ import annotations

import json
import threading

import h11

from dls.remote.tunnel.official import HEALTHZ, HEARTBEAT

LEASE_SECONDS = 600.0
"""Seconds that a lease lasts without use in nnInteractive's own server: told of a lease that is not known here."""
MAX_LEASES = 256
"""Number of leases beyond which the longest known one is forgotten: every user of this computer may use the port."""
REMAINING, IDLE = "remaining_seconds", "idle_timeout_seconds"


class LeaseNumbers:
    """Remembers the numbers of each lease."""

    def __init__(self) -> None:
        self._leases: dict[bytes, dict[str, float]] = {}
        self._lock = threading.Lock()

    def learn(self, path: bytes, lease: bytes, response: h11.Response, body: bytes) -> bool:
        """Take the numbers from a server's answer; False for an answer that would end a client's heartbeats wrongly."""
        status, numbers = response.status_code, _read_numbers(body)
        if status == 410:
            with self._lock:
                self._leases.pop(lease, None)
        if status != 200 or path == HEALTHZ:
            return status < 500
        if numbers is None:
            return False
        with self._lock:
            self._leases[lease] = {**self._leases.pop(lease, {}), **numbers}
            if len(self._leases) > MAX_LEASES:
                del self._leases[next(iter(self._leases))]
        return True

    def recall(self, path: bytes, lease: bytes) -> dict[str, float]:
        """Return the fields of an answer to a heartbeat or a request for the lease's state."""
        names = (REMAINING,) if path == HEARTBEAT else (REMAINING, IDLE)
        with self._lock:
            known = self._leases.get(lease, {})
            return {name: known.get(name, LEASE_SECONDS) for name in names}


def _read_numbers(body: bytes) -> dict[str, float] | None:
    """Return the numbers of an answer; None where it is not what a client reads."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get(REMAINING), int | float):
        return None
    return {name: fields[name] for name in (REMAINING, IDLE) if isinstance(fields.get(name), int | float)}
