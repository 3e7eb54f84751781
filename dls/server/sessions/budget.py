"""The memory that the images of all sessions may take together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from dls.errors import TooLarge
from dls.server.engines.base import Engine
from dls.server.executors import Executors
from dls.server.sessions.session import Session
from dls.server.volume import Geometry

log = logging.getLogger("dls.server")


class MemoryBudget:
    """Reserves memory for sessions, and puts sessions to sleep that nobody uses when there is not enough.

    ITK-SNAP ends no session when it quits, so when an image needs memory, the sessions that were not used for longest
    are put to sleep.
    """

    def __init__(self, engine: Engine, executors: Executors, limit: int, sessions: Mapping[str, Session]) -> None:
        self._engine = engine
        self._executors = executors
        self._limit = limit
        self._sessions = sessions
        self._changed = asyncio.Condition()

    @property
    def largest_image(self) -> int:
        """Bytes of float32 in the largest image that fits the budget."""
        return int(4 * self._limit / (self._engine.session_bytes(1 << 20) / (1 << 20)))

    def check_size(self, geometry: Geometry) -> int:
        """Return the bytes of memory that the image takes; raises TooLarge if it never fits."""
        needed = self._engine.session_bytes(geometry.voxels)
        if needed > self._limit:
            raise TooLarge(
                f"The image needs {needed >> 20} MiB of memory; this server has {self._limit >> 20} MiB for images. "
                "Crop or resample it in ITK-SNAP."
            )
        return needed

    async def reserve(self, session: Session, geometry: Geometry) -> None:
        """Reserve memory for the session's image, and put unused sessions to sleep until it fits.

        If all other sessions are at work, wait until one is not. Raises TooLarge for an image that never fits.
        """
        needed = self.check_size(geometry)
        while True:
            others = [other for other in self._sessions.values() if other is not session]
            if sum(other.reserved for other in others) + needed <= self._limit:
                session.reserved = needed
                return
            unused = [other for other in others if other.segmentation and not other.lock.locked()]
            if not unused:
                async with self._changed:
                    await self._changed.wait()
                continue
            oldest = min(unused, key=lambda other: other.last_used)
            async with oldest.lock:
                log.info("session %s is put to sleep, %d MiB", oldest.id[:8], oldest.reserved >> 20)
                await self.release(oldest)

    async def release(self, session: Session) -> None:
        """Put the session to sleep: close its segmentation and free its memory. The session's lock must be held."""
        segmentation, session.segmentation, session.reserved = session.segmentation, None, 0
        if segmentation is not None:
            await self._executors.prepare(segmentation.close)
        await self.notify()

    async def release_all(self) -> None:
        """Put every session to sleep after the engine's process was lost; their files hold what is needed again."""
        for session in self._sessions.values():
            if session.segmentation is not None:
                session.segmentation.close()
                session.segmentation, session.reserved = None, 0
        await self.notify()

    async def notify(self) -> None:
        """Let waiting reservations look again: memory was freed, or a session is not at work any more."""
        async with self._changed:
            self._changed.notify_all()
