"""How far the engine is on its way to the first prompt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from dls.errors import DlsError, Exhausted
from dls.server.engines.base import Engine, Step
from dls.server.executors import Executors

PAUSE_SECONDS = 10.0
"""Between two tries to load an engine that was lost."""

log = logging.getLogger("dls.server")


class Readiness:
    """Loads the engine while the server already answers, and lets those wait who need it."""

    def __init__(self, failed: Callable[[DlsError], None] = lambda error: None) -> None:
        self._failed = failed
        self._ended = asyncio.Event()
        self._step = Step("start", "starting")
        self.error: DlsError | None = None
        self.is_ready = False
        self._was_lost = False
        self._tried = 0.0

    async def load(self, engine: Engine, workers: Executors) -> None:
        """Load the engine on its own thread; a failure is kept and told."""
        await self._load(engine, workers)
        if self.error is not None:
            self._failed(self.error)

    async def load_again(self, engine: Engine, workers: Executors) -> None:
        """Load an engine that was lost; a failure is kept, and another try may come later."""
        self._ended.clear()
        self.is_ready, self.error = False, None
        await self._load(engine, workers)
        self._tried = time.monotonic()
        self._was_lost = True

    async def _load(self, engine: Engine, workers: Executors) -> None:
        try:
            await workers.engine(engine.load, self._tell)
            self.is_ready = True
        except DlsError as error:
            self.error = error
        except Exception as error:
            log.exception("the engine could not be loaded")
            self.error = DlsError(f"The engine could not be loaded: {type(error).__name__}: {error}.")
        self._ended.set()

    def give_up(self) -> None:
        """Let nobody wait any longer: the server ends."""
        if not self.is_ready:
            self.error = self.error or DlsError("The server is ending.")
            self._ended.set()

    @property
    def may_try_again(self) -> bool:
        """Whether the engine was lost, could not be loaded again, and some time has passed since."""
        return self._was_lost and self.error is not None and time.monotonic() - self._tried > PAUSE_SECONDS

    def _tell(self, step: Step) -> None:
        if step.name != self._step.name:
            log.info("%s: %s", step.name, step.text)
        self._step = step

    async def wait(self) -> None:
        """Wait until the engine is ready, or raise Exhausted when it never will be."""
        await self._ended.wait()
        if self.error is not None:
            raise Exhausted(f"The server's engine could not be loaded. {self.error.message}")

    def described(self) -> dict[str, Any]:
        """Return what `/status` says of it; nothing once it is ready."""
        if self.is_ready:
            return {}
        if self.error is not None:
            return {"state": "failed", "error": self.error.message}
        step = self._step
        return {"state": "loading", "step": step.name, "text": step.text, "done": step.done, "total": step.total}
