"""The registry of all sessions: start, find, evict and close them.

A session is asleep when the engine holds nothing of it: only its files are left, and its next prompt wakes it. That is
how a session outlives a crash of the engine, a crash of the server, and weeks without use.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager

from dls.contract import UNKNOWN_SESSION
from dls.errors import NotFound
from dls.server import descriptors
from dls.server.engines.base import Engine, Model
from dls.server.engines.readiness import Readiness
from dls.server.engines.recovery import EngineRecovery
from dls.server.executors import Executors
from dls.server.operations import Carried
from dls.server.sessions.applied import AppliedRequests
from dls.server.sessions.arrivals import Arrival
from dls.server.sessions.budget import MemoryBudget
from dls.server.sessions.files import PART_SECONDS, SessionFiles
from dls.server.sessions.images import Images
from dls.server.sessions.official_session import OfficialSession
from dls.server.sessions.official_work import OfficialWork
from dls.server.sessions.session import Session
from dls.server.sessions.store import SessionStore, StoredManifest
from dls.server.sessions.work import Backend, SessionWork
from dls.server.volume import Geometry

MAX_EMPTY_SESSIONS = 500
"""Maximum number of sessions without an image: ITK-SNAP starts one, and then forgets it, each time its panel opens."""
MAINTENANCE_SECONDS = 3600.0
"""Seconds between two rounds of maintenance; a session unused for one to two such periods is dropped from memory."""

log = logging.getLogger("dls.server")


class SessionRegistry:
    """All sessions of one engine, of which as many are awake as the memory budget allows."""

    def __init__(
        self,
        engine: Engine,
        executors: Executors,
        readiness: Readiness,
        store: SessionStore,
        memory: int,
        models: tuple[Model, ...],
    ) -> None:
        self._engine = engine
        self._models = [model.id for model in models]
        self._executors = executors
        self._store = store
        self._sessions: dict[str, Session] = {}
        self._loading: dict[str, asyncio.Task[Session]] = {}
        """Sessions that are being read from their files, which several requests may wait for at once."""
        self._uses = itertools.count(1)
        self._budget = MemoryBudget(engine, executors, memory, self._sessions)
        self._recovery = EngineRecovery(engine, executors, readiness, self._budget.release_all)
        self._backend = Backend(engine, executors, self._recovery, self._budget, self._forget, store)
        self.images = Images(executors, store, self._sessions, self.holding)
        """The images that arrive, and those that are there."""

    def describe_engine(self) -> dict[str, str]:
        """Return what `/status` says about the engine to the client that started this server."""
        return {"device": self._engine.device, "notice": self._engine.notice}

    async def count(self) -> tuple[int, int]:
        """Return how many sessions with an image the engine holds, and how many are asleep, in their files only."""
        awake = sum(session.is_awake for session in self._sessions.values())
        return awake, max(0, await self._executors.codec(self._store.count) - awake)

    def list_stored(self, limit: int) -> list[StoredManifest]:
        """Return the sessions with an image, in memory or not, those that were changed last first."""
        return self._store.list_with_images(limit)

    def is_awake(self, session_id: str) -> bool:
        """Return whether the engine holds the session."""
        return session_id in self._sessions and self._sessions[session_id].is_awake

    def used_at(self, session_id: str) -> float:
        """Return when a session in memory was used last, in seconds since 1970; 0 for another one."""
        return self._sessions[session_id].used_at if session_id in self._sessions else 0.0

    def engine_seconds(self, session_id: str) -> float:
        """Return how long the engine took for a session's last prompt; 0 for a session that is not in memory."""
        return self._sessions[session_id].engine_seconds if session_id in self._sessions else 0.0

    @property
    def ttl(self) -> float:
        """Seconds without use after which a session's files are removed."""
        return self._store.ttl

    async def wait_ready(self) -> None:
        """Wait until the engine is ready; raises Exhausted when it can't be loaded."""
        await self._recovery.wait_ready()

    @property
    def largest_image(self) -> int:
        """Bytes of float32 in the largest image that fits the memory budget."""
        return self._budget.largest_image

    def arriving_image(self, session: Session, length: int) -> AbstractContextManager[Arrival]:
        """Count the memory of an image of about `length` compressed bytes while it arrives."""
        return self._budget.arriving_image(session, length)

    def arriving_drawing(self, session: Session) -> AbstractContextManager[Arrival]:
        """Count the memory of a drawing while it arrives and is applied."""
        return self._budget.arriving_drawing(session)

    def check_size(self, geometry: Geometry) -> int:
        """Return the bytes of memory that the image takes; raises TooLarge if it never fits."""
        return self._budget.check_size(geometry)

    async def start(self, model: str | None) -> Session:
        """Create a session for the model, or for the engine's first model if none is named; raises NotFound."""
        chosen = self._models[0] if model is None else model
        if chosen not in self._models:
            raise NotFound(f"This server has no model named {chosen[:80]!r}. It has: {', '.join(self._models)}.")
        await self._recovery.wait_ready()
        return await self._create(chosen, None)

    async def claim(self) -> OfficialSession:
        """Create a session for an official client; the engine must be ready."""
        session = await self._create(self._models[0], Carried())
        assert isinstance(session, OfficialSession)
        return session

    async def _create(self, model: str, carried: Carried | None) -> Session:
        await self._remove_empty()
        files = await self._executors.codec(self._store.create, str(uuid.uuid4()), model, self._engine.key, carried)
        return self._add(_make_session(files))

    def _add(self, session: Session) -> Session:
        """Add the session unless it is there already; return the one that is there, marked as just used."""
        session = self._sessions.setdefault(session.id, session)
        session.last_used, session.used_at = next(self._uses), time.time()
        return session

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id, None)

    async def _remove_empty(self) -> None:
        empty = [session for session in self._sessions.values() if not session.has_image and not session.lock.locked()]
        most = min(MAX_EMPTY_SESSIONS, descriptors.limit() // descriptors.EMPTY_SESSION_SHARE)
        surplus = max(0, len(empty) - most)
        for session in sorted(empty, key=lambda session: session.last_used)[:surplus]:
            is_registered = self._sessions.get(session.id) is session
            if is_registered and not session.has_image and not session.lock.locked():  # others were awaited meanwhile
                async with self.at_work(session) as work:
                    await work.end()

    async def get(self, session_id: str) -> Session:
        """Return ITK-SNAP's session, and read it from its files if it is not in memory; raises NotFound."""
        session = await self.find(session_id)
        if isinstance(session, OfficialSession):
            raise _unknown_session()
        return session

    async def get_official(self, session_id: str, is_use: bool = True) -> OfficialSession:
        """Return an official client's session, as `get` returns ITK-SNAP's; a look at it need not be a use."""
        session = await self.find(session_id, is_use)
        if not isinstance(session, OfficialSession):
            raise _unknown_session()
        return session

    async def find(self, session_id: str, is_use: bool = True) -> Session:
        """Return a session of either kind; raises NotFound."""
        session = self._sessions.get(session_id)
        if session is None:
            loading = self._loading.get(session_id)
            if loading is None:
                loading = self._loading[session_id] = asyncio.create_task(self._load(session_id))
                loading.add_done_callback(lambda _: self._loading.pop(session_id))
            # Shielded: the client of one request may disconnect while other requests wait for the same session.
            session = await asyncio.shield(loading)
        return self._add(session) if is_use else session

    async def _load(self, session_id: str) -> Session:
        """Read the session from its files; only one task may do so, because their lock can be taken only once."""
        files = await self._executors.codec(self._store.find, session_id)
        if files is None:
            raise _unknown_session()
        session = _make_session(files)
        await self._executors.codec(files.refresh_times)
        return self._add(session)

    @asynccontextmanager
    async def at_work(self, session: Session) -> AsyncIterator[SessionWork]:
        """Hold the session's lock, and give the operations that need it.

        Raises NotFound if the session was ended meanwhile; a session that was evicted meanwhile is read again.
        """
        async with self.holding(session) as held:
            yield SessionWork(held, self._backend)

    @asynccontextmanager
    async def at_official_work(self, session: OfficialSession) -> AsyncIterator[OfficialWork]:
        """Hold an official client's session, as `at_work` holds ITK-SNAP's."""
        async with self.holding(session) as held:
            assert isinstance(held, OfficialSession)
            yield OfficialWork(held, self._backend)

    @asynccontextmanager
    async def holding(self, session: Session) -> AsyncIterator[Session]:
        """Hold the session's lock, for whatever is done with its files."""
        while True:
            try:
                async with session.lock:
                    if session.is_ended:
                        raise _unknown_session()
                    if self._sessions.get(session.id) is session:
                        yield session
                        return
            finally:
                await self._budget.notify()  # a reservation may wait for a session that is not at work
            session = await self.find(session.id)

    async def sleep(self, session: Session) -> None:
        """Free the memory that the session takes; its next prompt reads its files again."""
        async with self.at_work(session) as work:
            await work.sleep()

    async def run_maintenance(self, seconds: float = MAINTENANCE_SECONDS) -> None:
        """Evict unused sessions and remove expired files, again and again until cancelled."""
        while True:
            before = next(self._uses)
            await asyncio.sleep(seconds)
            try:
                await self.evict_unused(before)
            except Exception:
                log.exception("a round of maintenance failed; the next one comes in %.0f s", seconds)

    async def evict_unused(self, before: int) -> None:
        """Drop the sessions whose last use was before `before` from memory, and remove the files of expired ones."""
        for session in [*self._sessions.values()]:
            await self._executors.codec(session.files.remove_parts, PART_SECONDS)
            if session.last_used > before or session.lock.locked() or session.arriving:
                await self._executors.codec(session.files.refresh_times)
                continue
            async with session.lock:
                await self._budget.release(session)
                if session.arriving:  # an upload has begun meanwhile
                    continue
                self._forget(session)
                session.files.release()
        await self._executors.codec(self._store.remove_expired, tuple(self._sessions))

    def close(self) -> None:
        """Release every session; their files stay."""
        for session in self._sessions.values():
            if (held := session.detach()) is not None:
                held.close()
            session.files.release()
        self._sessions.clear()


def _make_session(files: SessionFiles) -> Session:
    if files.manifest.carried is None:
        return Session(files.manifest.id, files, AppliedRequests(files.last_request))
    return OfficialSession.read(files)


def _unknown_session() -> NotFound:
    return NotFound(UNKNOWN_SESSION)
