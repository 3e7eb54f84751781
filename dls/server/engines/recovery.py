"""Restart an engine that was lost, once for all requests that noticed it."""

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

MAX_PROMPT_ATTEMPTS = 2
"""Number of times that a prompt is given to an engine whose process dies at this prompt."""
MAX_ATTEMPTS = 6
"""Number of times that work is attempted in all, including losses of the engine that other work caused."""

log = logging.getLogger("dls.server")


class EngineRecovery:
    """Restarts an engine whose process died or hangs.

    `forget` is called before a restart: it drops every reference to what the lost process held.
    """

    def __init__(
        self, engine: Engine, executors: Executors, readiness: Readiness, forget: Callable[[], Awaitable[None]]
    ) -> None:
        self._engine = engine
        self._executors = executors
        self._readiness = readiness
        self._forget = forget
        self._lock = asyncio.Lock()
        self.generation = 0
        """Number of times that the engine has been restarted."""

    async def wait_ready(self) -> None:
        """Wait until the engine is ready; loads it again when the last restart failed a while ago.

        Raises Exhausted when the engine can't be loaded.
        """
        if self._readiness.may_retry:
            async with self._lock:
                if self._readiness.may_retry:
                    await self._readiness.reload(self._engine, self._executors)
        await self._readiness.wait()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run the work, and run it again on a restarted engine when the engine is lost meanwhile.

        Raises EngineFailed when the engine was lost twice during the work's own prompt, or too often in all.
        """
        own_losses = 0
        for attempt in range(1, MAX_ATTEMPTS + 1):
            generation = self.generation
            try:
                return await work()
            except EngineLost as lost:
                await self.restart(generation, lost)
                own_losses += lost.during_prompt
                if own_losses == MAX_PROMPT_ATTEMPTS or attempt == MAX_ATTEMPTS:
                    raise EngineFailed(
                        f"The segmentation failed at this step, and failed again when it was repeated. {lost.message} "
                        "Nothing was changed."
                    ) from lost
        raise AssertionError("unreachable")

    async def restart(self, generation: int, lost: EngineLost) -> None:
        """Restart the engine, unless it has been restarted since that generation."""
        async with self._lock:
            if generation != self.generation:
                return
            self.generation += 1
            log.error("the engine was lost: %s; restarting it", lost.message)
            await self._forget()
            await self._readiness.reload(self._engine, self._executors)
