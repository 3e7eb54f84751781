"""How the link is at one moment, for people."""

from __future__ import annotations

import time
from dataclasses import dataclass

from dls.remote.tunnel.link import Link
from dls.remote.tunnel.traffic import Answered


@dataclass(frozen=True)
class Observation:
    """How the link is at one moment; times are in seconds."""

    state: str
    """One of: open, lost, asleep, closed."""
    seconds: float
    """How long it has been so."""
    reason: str = ""
    """Why it is not open, in a sentence."""
    restored: int = 0
    """How often it was open again after it was lost."""
    next_try: float | None = None
    """In how many seconds it is tried again; None while it is being tried."""
    waiting: int = 0
    """Requests that wait for the end of an outage."""
    last: Answered | None = None
    """The last prompt that was answered through the local port."""
    now: float = 0.0
    """The moment, by `time.monotonic`."""

    @classmethod
    def of(cls, link: Link) -> Observation:
        """Return how the link is now."""
        wall, next_try, last = time.time(), link.next_try, link.traffic.last
        return cls(
            link.state.value,
            max(0.0, wall - link.since),
            link.reason,
            link.restored,
            None if next_try is None or next_try <= wall else next_try - wall,
            link.waiting,
            last,
            time.monotonic(),
        )
