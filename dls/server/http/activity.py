"""What is being asked of the server, and when nobody needs it any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger("dls.server")


@dataclass
class Activity:
    """What is being asked of the server, and when something last was."""

    clock: Callable[[], float] = time.monotonic
    running: int = 0
    idle_before: float = 0.0
    """Seconds without a request before the one that came last."""
    _last: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._last = self.clock()

    def begin(self) -> None:
        """A request has come."""
        self.idle_before = self.idle_seconds
        self.running += 1

    def end(self) -> None:
        """A request has been answered."""
        self.running -= 1
        self._last = self.clock()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last request; none while one is under way."""
        return 0.0 if self.running else self.clock() - self._last


async def watch_idle(activity: Activity, seconds: float, end: Callable[[], None]) -> None:
    """End the server when nobody has asked anything of it for so long."""
    while activity.idle_seconds < seconds:
        await asyncio.sleep(min(5.0, seconds / 10))
    log.info("nobody has asked for anything for %.0f minutes: the server ends", seconds / 60)
    end()
