"""Counts requests, and notices when nobody has used the server for a long time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger("dls.server")


@dataclass
class Activity:
    """Counts the running requests and measures the time since the last one."""

    clock: Callable[[], float] = time.monotonic
    running: int = 0
    """Number of requests that are being answered now."""
    idle_before: float = 0.0
    """Seconds without a request before the latest one came."""
    _last: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def begin(self) -> None:
        """Record that a request has come."""
        self.idle_before = self.idle_seconds
        self.running += 1

    def end(self) -> None:
        """Record that a request has been answered."""
        self.running -= 1
        self._last = self.clock()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last request; 0 while one is being answered."""
        return 0.0 if self.running else self.clock() - self._last


async def watch_idle(activity: Activity, seconds: float, stop: Callable[[], None]) -> None:
    """Wait until the server has had no request for that many seconds, and then stop it."""
    while activity.idle_seconds < seconds:
        await asyncio.sleep(min(5.0, seconds / 10))
    log.info("nobody has asked for anything for %.0f minutes: the server ends", seconds / 60)
    stop()
