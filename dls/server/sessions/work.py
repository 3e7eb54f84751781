"""Work on one session: image, prompts, reset, sleep and end.

`SessionRegistry.at_work` holds the session's lock and gives a `SessionWork`, so none of this runs twice at once.
"""

from __future__ import annotations

import contextlib
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from dls.contract import BEGIN_ANEW
from dls.errors import Conflict, EngineFailed, EngineLost, Exhausted, RequestError
from dls.server.engines.base import Engine, Segmentation
from dls.server.engines.messages import EngineFault
from dls.server.engines.recovery import EngineRecovery
from dls.server.executors import Executors, timed
from dls.server.sessions.budget import MemoryBudget
from dls.server.sessions.incoming import IncomingImage
from dls.server.sessions.journal import Record
from dls.server.sessions.session import Session, compare_masks, encode_answer, read_image, record_answer
from dls.server.sessions.store import SessionStore
from dls.server.volume import Prompt, Volume, extent, union

MINIMUM_DICE = 0.99
"""Smallest Dice coefficient between a replayed mask and the answered one with which a session goes on."""
CHANGED_MASK = "The prompts of this session give another mask than the one that was shown before"

log = logging.getLogger("dls.server")


@dataclass(frozen=True)
class Backend:
    """The objects of the server that SessionWork uses."""

    engine: Engine
    executors: Executors
    recovery: EngineRecovery
    budget: MemoryBudget
    forget: Callable[[Session], None]
    """Removes a session from the registry; its files stay."""
    store: SessionStore


class SessionWork:
    """The operations on a session for which its lock must be held."""

    def __init__(self, session: Session, backend: Backend) -> None:
        self._session = session
        self._backend = backend
        self._executors = backend.executors

    async def set_image(self, volume: Volume, incoming: IncomingImage, request: str) -> None:
        """Replace the session's image and remove its prompts; the old image stays if the engine refuses the new one.

        `incoming` holds the image as it was received, and becomes the session's file.
        """
        session = self._session
        session.requests.is_repeated(request)  # the same image again changes nothing
        await self.sleep()  # the old image is in the session's files
        await self._backend.recovery.run(lambda: self._open(volume))
        try:
            await self._executors.codec(session.files.set_image, incoming, volume.geometry, request)
            await self._executors.codec(session.files.remove_parts, used=session.arriving_files())
        except BaseException:
            await self.sleep()
            raise
        session.requests.add(request)

    async def prompt(self, prompt: Prompt, request: str) -> bytes:
        """Refine the mask by the prompt and return the body that answers it.

        A request of the same name as the last one was sent again because its answer was lost; it changes nothing.
        """
        session = self._session
        is_new = not session.requests.is_repeated(request)
        segmentation = await self._backend.recovery.run(lambda: self._refine(prompt if is_new else None))
        try:
            with translate_engine_errors():
                if is_new:
                    body = await self._executors.codec(
                        record_answer, segmentation.mask, session.occupied, session.files, prompt, request
                    )
                else:
                    body = await self._executors.codec(encode_answer, segmentation.mask, session.occupied)
        except BaseException:
            await self.sleep()  # the prompt is not in the files, so it must not stay in the segmentation either
            raise
        session.requests.add(request)
        return body

    async def _refine(self, prompt: Prompt | None) -> Segmentation:
        """Wake the session and apply the prompt, if there is one."""
        segmentation = await self._wake()
        if prompt is not None:
            try:
                with translate_engine_errors():
                    changed, seconds = await self._executors.engine(timed, segmentation.add, prompt)
            except EngineLost as lost:
                lost.during_prompt = lost.was_sent
                raise
            self._session.engine_seconds = seconds
            self._session.occupied = union(self._session.occupied, changed)
        return segmentation

    async def _wake(self) -> Segmentation:
        """Return the session's segmentation; if it is asleep, open its image and replay its prompts."""
        session = self._session
        if session.segmentation is not None:
            return session.segmentation
        geometry = session.geometry
        started = time.monotonic()
        await self._backend.recovery.wait_ready()
        self._check_engine()
        records = await self._executors.codec(session.files.read_records)
        await self._backend.budget.reserve(session, geometry)  # before the image is in memory
        try:
            volume = await self._executors.codec(read_image, session.files, geometry)
            segmentation = await self._open(volume)
            await self._replay(segmentation, records)
        except BaseException:
            await self.sleep()
            raise
        seconds = time.monotonic() - started
        log.info("session %s is awake again: %d prompts in %.2f s", session.id[:8], len(records), seconds)
        return segmentation

    def _check_engine(self) -> None:
        begun_with, current = self._session.files.manifest.engine, self._backend.engine.key
        if begun_with != current:
            raise Conflict(f"This session was begun with {begun_with}, and this server runs {current}. {BEGIN_ANEW}")

    async def _replay(self, segmentation: Segmentation, records: list[Record]) -> None:
        """Apply the prompts of the journal to a new segmentation; raises Conflict if they give another mask."""
        if not records:
            return
        with translate_engine_errors():
            await self._executors.engine(segmentation.replay, [record.prompt for record in records])
        crc = await self._executors.codec(zlib.crc32, segmentation.mask.data)
        if crc != records[-1].mask_crc:
            await self._restore(segmentation, records[-1].mask_crc)
        self._session.occupied = await self._executors.codec(extent, segmentation.mask)

    async def _restore(self, segmentation: Segmentation, crc: int) -> None:
        """Go on from the mask that was answered, after a replay that resulted in another one.

        A GPU in half precision moves single voxels. Raises Conflict if the masks differ by more, or if the mask that
        was answered is not stored.
        """
        session = self._session
        if session.files.manifest.end is None:  # the release before stored no masks
            log.warning("session %s: the mask is not what it was before it slept", session.id[:8])
            return
        data = await self._executors.codec(session.files.read_mask, segmentation.mask.size, crc)
        if data is None:
            raise Conflict(f"{CHANGED_MASK} and the stored mask is damaged. {BEGIN_ANEW}")
        answered = np.frombuffer(data, np.uint8).reshape(segmentation.mask.shape)
        different, dice = await self._executors.codec(compare_masks, segmentation.mask, answered)
        log.warning("session %s: the mask differs in %d voxels from the one answered", session.id[:8], different)
        if dice < MINIMUM_DICE:
            raise Conflict(f"{CHANGED_MASK} (in {different} voxels, Dice {dice:.3f}). {BEGIN_ANEW}")
        with translate_engine_errors():
            await self._executors.engine(segmentation.restore, answered)

    async def _open(self, volume: Volume) -> Segmentation:
        """Reserve memory for the image and open it in the engine."""
        session = self._session
        await self._backend.recovery.wait_ready()
        await self._backend.budget.reserve(session, volume.geometry)
        try:
            await self._backend.recovery.wait_ready()  # it may have been lost while memory was waited for
            # On the threads for images: an image must neither wait for other sessions' prompts nor delay them.
            with translate_engine_errors():
                session.segmentation = await self._executors.prepare(self._backend.engine.open, volume)
            session.occupied = None
        except BaseException:
            session.reserved = 0
            raise
        return session.segmentation

    async def reset(self, request: str) -> None:
        """Remove the session's prompts and empty its mask; raises Conflict for a request that was sent again since."""
        session = self._session
        session.requests.is_repeated(request)
        if not session.has_image:
            return
        await self._executors.codec(session.files.reset)
        session.requests.add(request)
        generation = self._backend.recovery.generation
        try:
            if session.segmentation is not None:
                with translate_engine_errors():
                    await self._executors.engine(session.segmentation.reset)
                session.occupied = None
        except EngineLost as lost:
            await self._backend.recovery.restart(generation, lost)
        except RequestError:  # the files are reset already, and the next prompt starts from them
            await self.sleep()

    async def sleep(self) -> None:
        """Free the memory that the session takes; its next prompt reads the files again."""
        await self._backend.budget.release(self._session)

    async def end(self) -> None:
        """Remove the session and its files."""
        self._session.is_ended = True
        try:
            await self.sleep()
            await self._executors.codec(self._session.files.remove)
        finally:
            self._backend.forget(self._session)


@contextlib.contextmanager
def translate_engine_errors() -> Iterator[None]:
    """Turn unexpected errors of the engine into EngineFailed, and lack of memory into Exhausted."""
    try:
        yield
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
