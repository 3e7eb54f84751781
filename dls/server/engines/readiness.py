"""Load the engine in the background, and report the progress."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from dls.errors import DlsError, EngineError, EngineLost, Exhausted
from dls.server.engines.base import Engine, Progress
from dls.server.executors import Executors

PAUSE_SECONDS = 10.0
"""Seconds between two attempts to load an engine that was lost."""

log = logging.getLogger("dls.server")


class Readiness:
    """Loads the engine while the server already accepts requests; those that need the engine wait for it.

    `on_failure` is called when the engine can't be loaded the first time.
    """

    def __init__(self, on_failure: Callable[[DlsError], None] = lambda error: None) -> None:
        self._on_failure = on_failure
        self._finished = asyncio.Event()
        self._progress = Progress("start", "starting")
        self.error: DlsError | None = None
        """Why the engine could not be loaded, or None."""
        self.is_ready = False
        self._was_lost = False
        self._last_attempt = 0.0

    async def load(self, engine: Engine, executors: Executors) -> None:
        """Load the engine on its own thread; a failure is stored in `error` and passed to `on_failure`."""
        await self._load(engine, executors)
        if self.error is not None:
            self._on_failure(self.error)

    async def reload(self, engine: Engine, executors: Executors) -> None:
        """Load an engine that was lost; a failure is stored in `error`, and a later attempt is allowed."""
        self._finished.clear()
        self.is_ready, self.error = False, None
        await self._load(engine, executors)
        self._last_attempt = time.monotonic()
        self._was_lost = True

    async def _load(self, engine: Engine, executors: Executors) -> None:
        try:
            await executors.engine(engine.load, self._report)
            self.is_ready = True
        except EngineLost as lost:
            self.error = EngineError(lost.message, "Lines of the engine before this one, if there are any, say why.")
        except DlsError as error:
            self.error = error
        except Exception as error:
            log.exception("the engine could not be loaded")
            self.error = EngineError(
                f"The engine could not be loaded: {type(error).__name__}: {error}.",
                "The lines before this one say where.",
            )
        self._finished.set()

    def cancel(self) -> None:
        """Make `wait` fail for everyone who still waits, because the server is ending."""
        if not self.is_ready:
            self.error = self.error or DlsError("The server is ending.")
            self._finished.set()

    @property
    def may_retry(self) -> bool:
        """Whether the engine was lost, could not be loaded again, and the pause since that attempt is over."""
        return self._was_lost and self.error is not None and time.monotonic() - self._last_attempt > PAUSE_SECONDS

    def _report(self, progress: Progress) -> None:
        if progress.name != self._progress.name:
            log.info("%s: %s", progress.name, progress.text)
        self._progress = progress

    async def wait(self) -> None:
        """Wait until the engine is loaded; raises Exhausted when it could not be loaded."""
        await self._finished.wait()
        if self.error is not None:
            raise Exhausted(f"The server's engine could not be loaded. {self.error.message}")

    def describe(self) -> dict[str, Any]:
        """Return the fields of `/status` that describe the loading; none once the engine is ready."""
        if self.is_ready:
            return {}
        if self.error is not None:
            return {"state": "failed", "error": self.error.message}
        now = self._progress
        return {"state": "loading", "step": now.name, "text": now.text, "done": now.done, "total": now.total}
