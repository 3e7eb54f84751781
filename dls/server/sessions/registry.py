"""Sessions: create, find, work on, put to sleep, wake and end them.

A session is asleep when the engine holds nothing of it: only its files are left, and the next request wakes it. That
is how it outlives a crash of the engine, of the server, and weeks without use.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from dls.errors import Conflict, EngineFailed, EngineLost, Exhausted, NotFound, RequestError, TooLarge
from dls.server.engines.base import Engine, Model, Segmentation
from dls.server.engines.messages import EngineFault
from dls.server.engines.readiness import Readiness
from dls.server.engines.recovery import EngineRecovery
from dls.server.executors import Executors
from dls.server.sessions.incoming import IncomingImage
from dls.server.sessions.session import Session, answered, read_image
from dls.server.sessions.store import SessionStore
from dls.server.volume import Geometry, Prompt, Volume, extent, union

T = TypeVar("T")

log = logging.getLogger("dls.server")

MOST_EMPTY = 500
"""Sessions without an image that are kept: ITK-SNAP starts one and forgets it each time its panel is opened."""
ROUND_SECONDS = 3600.0
"""After so long, up to twice that, without a request, a session goes to sleep whether there is room or not."""


class Sessions:
    """All sessions of one engine, as many awake as a budget of memory allows.

    ITK-SNAP ends no session when it quits, so when an image needs room, those that nobody has used for longest are put
    to sleep.
    """

    def __init__(
        self,
        engine: Engine,
        workers: Executors,
        readiness: Readiness,
        archive: SessionStore,
        budget: int,
        models: tuple[Model, ...],
    ) -> None:
        self._engine = engine
        self._models = [model.id for model in models]
        self._workers = workers
        self._archive = archive
        self._budget = budget
        self._sessions: dict[str, Session] = {}
        self._finding: dict[str, asyncio.Task[Session]] = {}
        """Sessions that are being read from their files: several requests may ask for one at once."""
        self._clock = itertools.count(1)
        self._room = asyncio.Condition()
        self._revival = EngineRecovery(engine, workers, readiness, self._asleep_all)

    def about_engine(self) -> dict[str, str]:
        """Return what the client that started this server wants to know of the engine."""
        return {"device": self._engine.device, "notice": self._engine.notice}

    @property
    def largest_image(self) -> int:
        """Bytes of float32 in the largest image that fits the budget."""
        return int(4 * self._budget / (self._engine.session_bytes(1 << 20) / (1 << 20)))

    async def start(self, model: str | None) -> Session:
        """Make a session for the model, the engine's first when none is named."""
        chosen = self._models[0] if model is None else model
        if chosen not in self._models:
            raise NotFound(f"This server has no model named {chosen[:80]!r}. It has: {', '.join(self._models)}.")
        await self._revival.wait_ready()
        await self._forget_empty()
        kept = await self._workers.codec(self._archive.create, str(uuid.uuid4()), chosen, self._engine.key)
        return self._remember(Session(kept.manifest.id, kept))

    def _remember(self, session: Session) -> Session:
        # Two requests may have looked for it at once: the first that found it counts.
        session = self._sessions.setdefault(session.id, session)
        session.last_used = next(self._clock)
        return session

    async def _forget_empty(self) -> None:
        empty = [s for s in self._sessions.values() if s.kept.manifest.image is None and not s.lock.locked()]
        for session in sorted(empty, key=lambda s: s.last_used)[: max(0, len(empty) - MOST_EMPTY)]:
            del self._sessions[session.id]
            await self._workers.codec(session.kept.remove)

    async def get(self, session_id: str) -> Session:
        """Return the session, from its files where this process has not seen it yet, or raise NotFound."""
        session = self._sessions.get(session_id)
        if session is None:
            finding = self._finding.get(session_id)
            if finding is None:
                finding = self._finding[session_id] = asyncio.create_task(self._find(session_id))
                finding.add_done_callback(lambda _: self._finding.pop(session_id))
            # Shielded: the client of one request may go away while others wait for the same session.
            session = await asyncio.shield(finding)
        return self._remember(session)

    async def _find(self, session_id: str) -> Session:
        """Read the session from its files, once for all who ask for it; its lock can be taken only once."""
        kept = await self._workers.codec(self._archive.find, session_id)
        if kept is None:
            raise NotFound(
                "The server does not know this session any more. In ITK-SNAP, choose the model again in the deep "
                "learning panel: that starts a new session and sends the image again."
            )
        session = Session(session_id, kept)
        records = await self._workers.codec(kept.records)
        session.last_request = records[-1].request if records else ""
        await self._workers.codec(kept.touch)
        return self._remember(session)

    async def end(self, session: Session) -> None:
        """Forget the session, files and all; call with its lock held."""
        self._sessions.pop(session.id, None)
        await self._sleep(session)
        await self._workers.codec(session.kept.remove)

    async def sleep(self, session: Session) -> None:
        """Give back what the engine holds of the session; its next prompt wakes it."""
        async with self.at_work(session):
            await self._sleep(session)

    async def _sleep(self, session: Session) -> None:
        """Give back what the engine holds of it."""
        segmentation, session.segmentation, session.bytes = session.segmentation, None, 0
        if segmentation is not None:
            await self._workers.prepare(segmentation.close)
        async with self._room:
            self._room.notify_all()

    def check_size(self, geometry: Geometry) -> int:
        """Return the memory that the image takes, or raise TooLarge when that is more than there is."""
        need = self._engine.session_bytes(geometry.voxels)
        if need > self._budget:
            raise TooLarge(
                f"The image needs {need >> 20} MiB of memory; this server has {self._budget >> 20} MiB for images. "
                "Crop or resample it in ITK-SNAP."
            )
        return need

    async def _make_room(self, session: Session, geometry: Geometry) -> None:
        """Reserve memory for the session's image: the idle sessions unused for longest go to sleep until it fits."""
        need = self.check_size(geometry)
        while True:
            held = sum(other.bytes for other in self._sessions.values() if other is not session)
            if held + need <= self._budget:
                session.bytes = need
                return
            idle = [s for s in self._sessions.values() if s is not session and s.segmentation and not s.lock.locked()]
            if not idle:  # all are at work: one of them will end
                async with self._room:
                    await self._room.wait()
                continue
            oldest = min(idle, key=lambda s: s.last_used)
            async with oldest.lock:
                log.info("session %s goes to sleep, %d MiB", oldest.id[:8], oldest.bytes >> 20)
                await self._sleep(oldest)

    @asynccontextmanager
    async def at_work(self, session: Session) -> AsyncIterator[None]:
        """Hold the session's lock; those who wait for room are told when it is free again."""
        async with session.lock:
            yield
        async with self._room:
            self._room.notify_all()

    async def arriving(self, session: Session, expected: int) -> IncomingImage:
        """Begin to keep an image of about so many compressed bytes; `set_image` makes it the session's."""
        return await self._workers.codec(session.kept.arriving, expected)

    async def set_image(self, session: Session, volume: Volume, arrived: IncomingImage, request: str) -> None:
        """Give the session its image; the old one stays when the engine can't take the new one."""
        async with self.at_work(session):
            await self._sleep(session)  # what is there now is in its files
            await self._revival.run(lambda: self._open(session, volume))
            try:
                await self._workers.codec(session.kept.take_image, arrived, volume.geometry, request)
            except BaseException:
                await self._sleep(session)
                raise
            session.last_request = request

    async def _open(self, session: Session, volume: Volume) -> Segmentation:
        await self._revival.wait_ready()
        await self._make_room(session, volume.geometry)
        try:
            # Beside other sessions' prompts: preparing an image must not wait for a prediction, nor hold one up.
            session.segmentation = await self._told(self._workers.prepare(self._engine.open, volume))
            session.drawn = None
        except BaseException:
            session.bytes = 0
            raise
        return session.segmentation

    async def prompt(self, session: Session, prompt: Prompt, request: str) -> bytes:
        """Refine the session's mask and return the answer; call with its lock held.

        A request that has been answered already, sent again because its answer was lost, changes nothing.
        """
        is_new = not request or request != session.last_request

        async def refined() -> Segmentation:
            segmentation = await self._awake(session)
            if is_new:
                try:
                    changed = await self._told(self._workers.engine(segmentation.add, prompt))
                except EngineLost as lost:
                    lost.during_prompt = True
                    raise
                session.drawn = union(session.drawn, changed)
            return segmentation

        segmentation = await self._revival.run(refined)
        kept = session.kept if is_new else None
        try:
            body = await self._workers.codec(answered, segmentation.mask, session.drawn, kept, prompt, request)
        except RequestError:
            await self._sleep(session)  # its files do not have the prompt, so it must not have it either
            raise
        session.last_request = request
        return body

    async def _awake(self, session: Session) -> Segmentation:
        """Return what the session works on; from its files when it is asleep."""
        if session.segmentation is not None:
            return session.segmentation
        geometry = session.geometry
        started = time.monotonic()
        await self._revival.wait_ready()
        if session.kept.manifest.engine != self._engine.key:
            raise Conflict(
                f"This session was begun with {session.kept.manifest.engine}, and this server runs "
                f"{self._engine.key}. In ITK-SNAP, choose the model again in the deep learning panel."
            )
        volume = await self._workers.codec(read_image, session.kept, geometry)
        segmentation = await self._open(session, volume)
        records = await self._workers.codec(session.kept.records)
        try:
            if records:
                await self._told(self._workers.engine(segmentation.replay, [record.prompt for record in records]))
                mask = await self._workers.codec(zlib.crc32, segmentation.mask.data)
                if mask != records[-1].mask:
                    log.warning("session %s: the mask is not what it was before it slept", session.id[:8])
                session.drawn = await self._workers.codec(extent, segmentation.mask)
        except BaseException:
            await self._sleep(session)
            raise
        seconds = time.monotonic() - started
        log.info("session %s is awake again: %d prompts in %.2f s", session.id[:8], len(records), seconds)
        return segmentation

    async def reset(self, session: Session) -> None:
        """Forget what was drawn."""
        async with self.at_work(session):
            if session.kept.manifest.image is None:
                return
            await self._workers.codec(session.kept.reset)
            session.last_request = ""
            generation = self._revival.generation
            try:
                if session.segmentation is not None:
                    await self._told(self._workers.engine(session.segmentation.reset))
                    session.drawn = None
            except EngineLost as lost:
                await self._revival.restart(generation, lost)
            except RequestError:  # its files say what it is now
                await self._sleep(session)

    async def _asleep_all(self) -> None:
        """Let go of what a lost engine held; every session wakes at its next request."""
        for other in self._sessions.values():
            if other.segmentation is not None:
                other.segmentation.close()
                other.segmentation, other.bytes = None, 0
        async with self._room:
            self._room.notify_all()

    async def _told(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except (RequestError, EngineLost):
            raise
        except MemoryError:
            log.exception("out of memory")
            raise Exhausted(
                "The server ran out of memory at this step; nothing was changed. Try again, or use a smaller image."
            ) from None
        except Exception as error:
            log.exception("the engine failed")
            kind = error.kind if isinstance(error, EngineFault) else type(error).__name__
            raise EngineFailed(
                f"The segmentation failed at this step ({kind}); nothing was changed. The server's log says more."
            ) from error

    async def look_after(self) -> None:
        """For as long as the server runs: sessions out of use go to sleep, and their files some day."""
        while True:
            before = next(self._clock)
            await asyncio.sleep(ROUND_SECONDS)
            await self.go_round(before)

    async def go_round(self, before: int) -> None:
        """Put what was not used since `before` to sleep and out of mind; remove the files of what is too old."""
        for session in [*self._sessions.values()]:
            if session.last_used > before or session.lock.locked():
                await self._workers.codec(session.kept.touch)
                continue
            async with session.lock:
                await self._sleep(session)
                self._sessions.pop(session.id, None)
                session.kept.release()
        await self._workers.codec(self._archive.expire, tuple(self._sessions))

    def close(self) -> None:
        """Let go of every session; their files stay."""
        for session in self._sessions.values():
            if session.segmentation is not None:
                session.segmentation.close()
            session.kept.release()
        self._sessions.clear()
