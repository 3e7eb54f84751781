"""Sessions: create, get, end, and make room."""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from dls.errors import Conflict, EngineFailed, Exhausted, NotFound, RequestError, TooLarge
from dls.server.engines.base import Engine, Model, Segmentation
from dls.server.volume import Geometry, Prompt, Volume
from dls.server.workers import Workers

T = TypeVar("T")

log = logging.getLogger("dls.server")

MOST_EMPTY = 500
"""Sessions without an image that are kept: ITK-SNAP starts one and forgets it each time its panel is opened."""


@dataclass
class Session:
    """One client's image and what has been drawn on it."""

    id: str
    model: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    geometry: Geometry | None = None
    segmentation: Segmentation | None = None
    last_used: int = 0
    bytes: int = 0
    """The memory it holds."""

    def opened(self) -> tuple[Segmentation, Geometry]:
        """Return what it works on, or raise Conflict before an image has come."""
        if self.segmentation is None or self.geometry is None:
            raise Conflict("This session has no image yet. Send the image again from ITK-SNAP.")
        return self.segmentation, self.geometry

    def close(self) -> None:
        """Give back its memory."""
        if self.segmentation is not None:
            self.segmentation.close()
        self.segmentation = self.geometry = None
        self.bytes = 0


class Sessions:
    """All sessions of one engine, within a budget of memory.

    ITK-SNAP ends no session when it quits, so when an image needs room, the sessions that nobody has used for longest
    give theirs up.
    """

    def __init__(self, engine: Engine, workers: Workers, budget: int, models: tuple[Model, ...]) -> None:
        self._engine = engine
        self._models = [model.id for model in models]
        self._workers = workers
        self._budget = budget
        self._sessions: dict[str, Session] = {}
        self._clock = itertools.count(1)

    def __len__(self) -> int:
        return len(self._sessions)

    def about_engine(self) -> dict[str, str]:
        """Return what the client that started this server wants to know of the engine."""
        return {"device": self._engine.device, "notice": self._engine.notice}

    @property
    def largest_image(self) -> int:
        """Bytes of float32 in the largest image that fits the budget."""
        return int(4 * self._budget / (self._engine.session_bytes(1 << 20) / (1 << 20)))

    def start(self, model: str | None) -> Session:
        """Make a session for the model, the engine's first when none is named."""
        chosen = self._models[0] if model is None else model
        if chosen not in self._models:
            raise NotFound(f"This server has no model named {chosen[:80]!r}. It has: {', '.join(self._models)}.")
        self._forget_empty()
        session = Session(str(uuid.uuid4()), chosen)
        self._sessions[session.id] = session
        self._touch(session)
        return session

    def _forget_empty(self) -> None:
        empty = [s for s in self._sessions.values() if not s.bytes and not s.lock.locked()]
        for session in sorted(empty, key=lambda s: s.last_used)[: max(0, len(empty) - MOST_EMPTY)]:
            del self._sessions[session.id]

    def get(self, session_id: str) -> Session:
        """Return the session, or raise NotFound with what the user can do."""
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFound(
                "The server does not know this session any more. In ITK-SNAP, choose the model again in the deep "
                "learning panel: that starts a new session and sends the image again."
            )
        self._touch(session)
        return session

    def end(self, session_id: str) -> None:
        """Forget the session."""
        self.get(session_id).close()
        del self._sessions[session_id]

    def _touch(self, session: Session) -> None:
        session.last_used = next(self._clock)

    def make_room(self, geometry: Geometry, keep: Session) -> None:
        """Close the sessions unused for longest until the image fits, or raise TooLarge when it never can."""
        need = self._engine.session_bytes(geometry.voxels)
        if need > self._budget:
            raise TooLarge(
                f"The image needs {need >> 20} MiB of memory; this server has {self._budget >> 20} MiB for images. "
                "Crop or resample it in ITK-SNAP."
            )
        idle = sorted(
            (s for s in self._sessions.values() if s is not keep and s.bytes and not s.lock.locked()),
            key=lambda s: s.last_used,
        )
        held = sum(session.bytes for session in self._sessions.values())
        for session in idle:
            if held + need <= self._budget:
                return
            held -= session.bytes
            log.info("session %s gives up %d MiB", session.id[:8], session.bytes >> 20)
            session.close()
            del self._sessions[session.id]

    async def set_image(self, session: Session, volume: Volume) -> None:
        """Give the session its image; the old one stays when the engine can't take the new one."""
        async with session.lock:
            # Beside other sessions' prompts: preparing an image must not wait for a prediction, nor hold one up.
            segmentation = await self._told(self._workers.prepare(self._engine.open, volume))
            session.close()
            session.segmentation, session.geometry = segmentation, volume.geometry
            session.bytes = self._engine.session_bytes(volume.geometry.voxels)

    async def prompt(self, session: Session, prompt: Prompt) -> Segmentation:
        """Refine the session's mask; call with its lock held."""
        segmentation, _ = session.opened()
        await self._told(self._workers.engine(segmentation.add, prompt))
        return segmentation

    async def reset(self, session: Session) -> None:
        """Forget what was drawn."""
        async with session.lock:
            if session.segmentation is not None:
                await self._told(self._workers.engine(session.segmentation.reset))

    async def _told(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except RequestError:
            raise
        except MemoryError:
            log.exception("out of memory")
            raise Exhausted(
                "The server ran out of memory at this step; nothing was changed. Try again, or use a smaller image."
            ) from None
        except Exception as error:
            log.exception("the engine failed")
            raise EngineFailed(
                f"The segmentation failed at this step ({type(error).__name__}); nothing was changed. "
                "The server's log says more."
            ) from error

    def close(self) -> None:
        """Forget every session."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
