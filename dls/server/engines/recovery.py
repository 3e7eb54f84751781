"""An engine that is lost is started anew, once for all who lost it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dls.errors import EngineFailed, EngineLost
from dls.server.engines.base import Engine
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors

T = TypeVar("T")

TRIES = 2
"""How often a prompt is given to an engine that dies of it."""
MOST_TRIES = 6
"""How often it is tried when the engine dies of something else meanwhile."""

log = logging.getLogger("dls.server")


class EngineRecovery:
    """Starts an engine anew when its process died or hangs; `forget` lets go of all that it held."""

    def __init__(
        self, engine: Engine, workers: Executors, readiness: Readiness, forget: Callable[[], Awaitable[None]]
    ) -> None:
        self._engine = engine
        self._workers = workers
        self._readiness = readiness
        self._forget = forget
        self._lock = asyncio.Lock()
        self.generation = 0
        """How often the engine has been started anew."""

    async def ready(self) -> None:
        """Wait until the engine is ready; one that could not be started anew is tried again."""
        if self._readiness.may_try_again:
            async with self._lock:
                if self._readiness.may_try_again:
                    await self._readiness.load_again(self._engine, self._workers)
        await self._readiness.wait()

    async def retrying(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work; once more on a new engine when the old one dies of it, and again when it dies of another's."""
        blamed = 0
        for attempt in range(1, MOST_TRIES + 1):
            generation = self.generation
            try:
                return await work()
            except EngineLost as lost:
                await self.revive(generation, lost)
                blamed += lost.during_prompt
                if blamed == TRIES or attempt == MOST_TRIES:
                    raise EngineFailed(
                        f"The segmentation failed at this step, and again when it was tried anew. {lost.message} "
                        "Nothing was changed."
                    ) from lost
        raise AssertionError("unreachable")

    async def revive(self, generation: int, lost: EngineLost) -> None:
        """Start the engine anew, unless somebody has done so since that generation."""
        async with self._lock:
            if generation != self.generation:
                return
            self.generation += 1
            log.error("the engine was lost: %s; starting it anew", lost.message)
            await self._forget()
            await self._readiness.load_again(self._engine, self._workers)
