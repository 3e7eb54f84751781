"""The images of the sessions on their way to the disk, and by their contents: none has to be sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from dls.contract import UNKNOWN_SESSION
from dls.errors import Exhausted, NotFound, RequestError
from dls.server.executors import Executors
from dls.server.sessions import copies
from dls.server.sessions.incoming import IncomingImage
from dls.server.sessions.session import Session
from dls.server.sessions.store import SessionStore

SHARING_SECONDS = 2.0
"""Seconds that a question for an image waits for the sessions of those that have just come: a click may hold one."""

log = logging.getLogger("dls.server")


@dataclass(frozen=True)
class SentImage:
    """What a request sends of an image, and what the server is to hold of it already."""

    length: int = 0
    """Length of the body; 0 where the client does not say it."""
    name: str = ""
    """Name under which an upload that is cut can go on; empty where it can't."""
    offset: int = 0
    """Bytes at the image's beginning that are not sent again."""
    copy: str = ""
    """Name of the copy to take in the place of an image; empty for an image that is sent."""


class Images:
    """What arrives for the sessions of a server, and what the server holds."""

    def __init__(
        self,
        executors: Executors,
        store: SessionStore,
        sessions: Mapping[str, Session],
        holding: Callable[[Session], AbstractAsyncContextManager[Session]],
    ) -> None:
        self._executors = executors
        self._store = store
        self._sessions = sessions
        self._holding = holding
        self._sharing: dict[asyncio.Task[None], asyncio.Event] = {}
        """Images that are to be found by their contents, each with an event that is set when its contents are known."""

    async def receive(self, session: Session, sent: SentImage) -> IncomingImage:
        """Create a file for an image, or take what the server holds of it; `SessionWork.set_image` takes it over.

        Raises NotFound, Exhausted, NotHeld or NoRoom.
        """
        await session.end_upload(sent.name)
        try:
            if sent.copy:
                incoming = await self._executors.codec(session.files.take_image, self._store.copies, sent.copy)
            else:
                await self.make_room(session, sent.length)
                incoming = await self._executors.codec(session.files.receive_image, sent.name, sent.offset)
        except Exhausted:
            if session.is_ended:
                raise NotFound(UNKNOWN_SESSION) from None
            raise
        incoming.expected = max(incoming.held, sent.offset + sent.length)
        session.arriving.add(incoming)
        return incoming

    async def make_room(self, session: Session, length: int = 0) -> None:
        """Let an image of so many compressed bytes fit on the disk in the place of the session's; raises NoRoom."""
        others = [each for other in self._sessions.values() for each in other.arriving if each.is_open]
        arriving = sum(max(0, each.expected - each.length) for each in others)
        image = session.files.manifest.image
        replaced = min(length, image.bytes) if image else 0
        await self._executors.codec(self._store.make_room, length - replaced + arriving, tuple(self._sessions))

    def share(self, session: Session) -> None:
        """Let the session's image be found by its contents; after the answer, for which nobody has to wait."""
        is_known = asyncio.Event()

        def end(task: asyncio.Task[None]) -> None:
            is_known.set()
            del self._sharing[task]

        task = asyncio.create_task(self._share(session, is_known))
        self._sharing[task] = is_known
        task.add_done_callback(end)

    async def _share(self, session: Session, is_known: asyncio.Event) -> None:
        image = session.files.manifest.image
        if image is None:
            return
        path = Path(image.path)
        with contextlib.suppress(OSError, RequestError):
            name = await self._executors.codec(copies.find_name, path)
            is_known.set()
            async with self._holding(session):
                if session.files.manifest.image == image:
                    await self._executors.codec(self._store.copies.add, name, path)

    async def has_copy(self, name: str) -> bool:
        """Return whether the server holds an image of that name; those that have just come included."""
        for is_known in [*self._sharing.values()]:
            await is_known.wait()
        if self._sharing:
            await asyncio.wait({*self._sharing}, timeout=SHARING_SECONDS)
        return await self._executors.codec(self._store.copies.has, name)

    async def is_whole(self, name: str, incoming: IncomingImage) -> bool:
        """Return whether a copy has the contents that its name says; one that has not is removed."""
        with contextlib.suppress(OSError):
            if await self._executors.codec(copies.find_name, incoming.path) == name:
                return True
        log.warning("a copy of an image is damaged, and removed")
        await self._executors.codec(self._store.copies.remove, name)
        return False

    async def find_part(self, session: Session, name: str) -> tuple[int, str]:
        """Return how many bytes of an upload that was cut are there, and their digest; ends what is left of it."""
        await session.end_upload(name)
        return await self._executors.codec(session.files.find_part, name)
