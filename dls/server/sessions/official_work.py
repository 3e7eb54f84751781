"""Work on one official client's session, for which its lock is held: image, operations, sleep and end."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dls.errors import BadRequest, Conflict, Delayed, EngineFailed, EngineLost, Exhausted, Gone
from dls.server.engines.base import OfficialEngine, OfficialSegmentation
from dls.server.executors import timed
from dls.server.operations import (
    ADD_INITIAL_SEG,
    PREDICT,
    PROMPTS,
    RESET,
    SET_TARGET_BUFFER,
    Buffer,
    Carried,
    Operation,
    Outcome,
    to_shape,
)
from dls.server.sessions.incoming import IncomingImage
from dls.server.sessions.journal import DamagedFile
from dls.server.sessions.official_records import OfficialAnswer, OfficialRecord
from dls.server.sessions.official_session import (
    Delivery,
    OfficialSession,
    buffer_crc,
    find_occupied,
    settle,
    store_operation,
)
from dls.server.sessions.session import compare_masks
from dls.server.sessions.work import MINIMUM_DICE, Backend, SessionWork, translate_engine_errors
from dls.server.volume import Box, Geometry, extent

T = TypeVar("T")

log = logging.getLogger("dls.server")


class OfficialWork:
    """The operations on an official session for which its lock must be held."""

    def __init__(self, session: OfficialSession, backend: Backend) -> None:
        self._session = self.session = session
        self._backend = backend
        self._executors = backend.executors
        self._plain = SessionWork(session, backend)

    async def sleep(self) -> None:
        """Free the memory that the session takes; its next operation reads the files again."""
        await self._plain.sleep()

    async def end(self) -> None:
        """Remove the session and its files."""
        await self._plain.end()

    async def set_image(self, geometry: Geometry, incoming: IncomingImage, request: str, delivery: Delivery) -> None:
        """Replace the session's image, and drop its buffer and interactions; a refused image changes nothing.

        `incoming` holds the image as it was received, and becomes the session's file.
        """
        session = self._session
        if session.requests.is_repeated(request):  # sent again, because its answer was lost
            await self._executors.codec(incoming.discard)
            return
        carried = replace(session.carried, buffer=None, request=request)
        await self.sleep()  # the old image is in the session's files
        await self._recovering(lambda: self._open(incoming.path, carried, self._count_bytes(geometry, carried)))
        try:
            await self._executors.codec(session.files.set_image, incoming, geometry, request, carried)
            await self._executors.codec(session.files.remove_parts, used=session.arriving_files())
        except BaseException:
            await self.sleep()
            raise
        self._settle(request, OfficialAnswer(), delivery, carried)

    async def operate(self, operation: Operation, request: str, delivery: Delivery) -> tuple[OfficialAnswer, bytes]:
        """Carry out an operation, and return its answer and the packed part of the buffer.

        A request of the same name as the last one was sent again because its answer was lost; it changes nothing.
        """
        session = self._session
        if session.requests.is_repeated(request):
            session.delivery.is_missed = True
            body = await self._recovering(lambda: self._pack_again(session.answer))
            session.delivery = delivery
            return session.answer, body
        try:
            outcome, answer, body, buffer = await self._recovering(lambda: self._carry_out(operation))
            occupied = find_occupied(session.occupied, operation, outcome)
            with translate_engine_errors():
                await self._store(operation, request, answer, outcome, occupied, buffer)
        except BaseException as error:
            await self._after_failure(operation, error)
            raise
        session.occupied = occupied
        self._settle(request, answer, delivery, outcome.carried)
        return answer, body

    async def _carry_out(self, operation: Operation) -> tuple[Outcome, OfficialAnswer, bytes, npt.NDArray[Any] | None]:
        """Carry out the operation, and return its outcome, its answer, the packed part of the buffer, and the buffer.

        When the engine is lost, the session is put to sleep meanwhile; what was opened here is gone then too.
        """
        segmentation = await self._wake()
        try:
            outcome = await self._apply(segmentation, operation)
        except EngineLost as lost:
            lost.during_prompt = lost.was_sent
            raise
        answer = settle(self._session.undelivered, operation, outcome)
        return outcome, answer, await self._pack(segmentation, answer), segmentation.buffer

    def _settle(self, request: str, answer: OfficialAnswer, delivery: Delivery, carried: Carried) -> None:
        session = self._session
        session.requests.add(request)
        session.answer = answer
        session.delivery, session.carried = delivery, carried

    async def _after_failure(self, operation: Operation, error: BaseException) -> None:
        """Make sure that the engine holds what the files hold, and that the client will."""
        session = self._session
        is_rolled_back = isinstance(error, BadRequest) and operation.name in PROMPTS and operation.name != PREDICT
        if not is_rolled_back:
            await self.sleep()
        if operation.name in (RESET, ADD_INITIAL_SEG) and session.carried.buffer is not None:
            # The client has overwritten its copy of the buffer already.
            session.answer = replace(session.answer, kept=session.carried.buffer.bounds)

    async def _store(
        self,
        operation: Operation,
        request: str,
        answer: OfficialAnswer,
        outcome: Outcome,
        occupied: Box | None,
        buffer: npt.NDArray[Any] | None,
    ) -> None:
        """Store the operation; after a reset the journal begins anew, because nothing before it has any effect."""
        session, carried = self._session, replace(outcome.carried, request=request)
        if operation.name == RESET:
            await self._executors.codec(session.files.reset, carried)
            return
        await self._executors.codec(
            store_operation, session.files, operation, request, answer, carried, buffer, occupied
        )

    async def _pack_again(self, answer: OfficialAnswer) -> bytes:
        return b"" if answer.box is None else await self._pack(await self._wake(), answer)

    async def _pack(self, segmentation: OfficialSegmentation, answer: OfficialAnswer) -> bytes:
        if answer.box is None:
            return b""
        with translate_engine_errors():
            return await self._executors.codec(segmentation.pack, answer.box)

    async def _apply(self, segmentation: OfficialSegmentation, operation: Operation) -> Outcome:
        if operation.name == SET_TARGET_BUFFER:
            buffer = Buffer(to_shape(operation.fields["shape"]), operation.fields["dtype"])
            carried = replace(self._session.carried, buffer=buffer)
            await self._backend.budget.reserve_bytes(self._session, self._count_bytes(self._geometry, carried))
        return await self._do(segmentation, operation)

    async def _do(self, segmentation: OfficialSegmentation, operation: Operation) -> Outcome:
        with translate_engine_errors():
            if operation.name in PROMPTS:
                # Not on the engine's threads: an image that is prepared must not delay other sessions' prompts.
                await self._executors.prepare(segmentation.prepare)
            outcome, self._session.engine_seconds = await self._executors.engine(timed, segmentation.do, operation)
            return outcome

    async def _recovering(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run the work, again where the engine is lost meanwhile; raises Delayed when that does not help."""
        try:
            return await self._backend.recovery.run(work)
        except EngineFailed as error:
            if isinstance(error.__cause__, EngineLost):
                raise Delayed(error.message) from error
            raise

    async def _wait_ready(self) -> None:
        try:
            await self._backend.recovery.wait_ready()
        except Exhausted as error:  # the engine can't be loaded
            raise Delayed(error.message) from error

    @property
    def _engine(self) -> OfficialEngine:
        assert self._backend.engine.official is not None
        return self._backend.engine.official

    @property
    def _geometry(self) -> Geometry | None:
        image = self._session.files.manifest.image
        return image.geometry if image else None

    def _count_bytes(self, geometry: Geometry | None, carried: Carried) -> int:
        """Return the bytes of memory of the session: an open image counts one byte a voxel for a mask."""
        voxels = geometry.voxels if geometry else 0
        own = self._backend.engine.session_bytes(voxels) if voxels else 0
        return own + max(0, (carried.buffer.bytes if carried.buffer else 0) - voxels)

    async def _open(self, image: Path | None, carried: Carried, needed: int) -> OfficialSegmentation:
        """Reserve memory and open the image in the engine."""
        session = self._session
        await self._wait_ready()
        await self._backend.budget.reserve_bytes(session, needed)
        try:
            await self._wait_ready()  # it may have been lost while memory was waited for
            with translate_engine_errors():
                session.official = await self._executors.prepare(self._engine.open, image, carried)
            session.occupied = None
        except BaseException:
            session.reserved = 0
            raise
        return session.official

    async def _wake(self) -> OfficialSegmentation:
        """Return what the engine holds of the session; if it is asleep, open its image and replay its operations.

        Raises Gone for a session that can't be continued.
        """
        session = self._session
        if session.official is not None:
            return session.official
        started = time.monotonic()
        await self._wait_ready()
        self._check_engine()
        try:
            records = await self._read_operations()
            segmentation = await self._replay(records)
        except (Conflict, BadRequest) as error:
            await self._set_aside(error.message)
            raise Gone(f"This session can't be continued. {error.message}") from error
        except BaseException:
            await self.sleep()
            raise
        seconds = time.monotonic() - started
        log.info("session %s is awake again: %d operations in %.2f s", session.id[:8], len(records), seconds)
        return segmentation

    async def _read_operations(self) -> list[OfficialRecord]:
        try:
            return await self._executors.codec(self._session.files.read_operations)
        except (Conflict, DamagedFile) as error:
            raise Conflict("Its stored operations are damaged.") from error

    def _check_engine(self) -> None:
        begun_with, current = self._session.files.manifest.engine, self._backend.engine.key
        if begun_with != current:
            raise Gone(f"This session was begun with {begun_with}, and this server runs {current}.")

    async def _set_aside(self, reason: str) -> None:
        session = self._session
        session.is_ended = True
        try:
            await self.sleep()
            await self._executors.codec(self._backend.store.set_aside, session.files, reason)
        finally:
            self._backend.forget(session)

    async def _replay(self, records: list[OfficialRecord]) -> OfficialSegmentation:
        """Open the image and carry out the operations of the journal; raises Conflict if they give another buffer."""
        session, manifest = self._session, self._session.files.manifest
        assert manifest.carried is not None
        states = [manifest.carried, *(record.carried for record in records)]
        needed = max(self._count_bytes(self._geometry, carried) for carried in states)
        image = Path(manifest.image.path) if manifest.image else None
        segmentation = await self._open(image, manifest.carried, needed)
        for record in records:
            await self._do(segmentation, record.operation)
        if records:
            crc = await self._executors.codec(buffer_crc, segmentation.buffer)
            if crc != records[-1].buffer_crc:
                await self._correct(segmentation, records[-1].buffer_crc)
        session.carried = states[-1]
        if segmentation.buffer is not None:
            session.occupied = await self._executors.codec(extent, segmentation.buffer)
        return segmentation

    async def _correct(self, segmentation: OfficialSegmentation, crc: int) -> None:
        """Go on from the buffer that was answered, after a replay that resulted in another one.

        A GPU in half precision moves single voxels. Raises Conflict if the buffers differ by more, or if the buffer
        that was answered is not stored.
        """
        buffer = segmentation.buffer
        assert buffer is not None
        data = await self._executors.codec(self._session.files.read_mask, buffer.nbytes, crc)
        if data is None:
            raise Conflict("Its operations give another buffer than before, and the stored one is damaged.")
        places, values, dice = await self._executors.codec(_compare, buffer, data)
        name = self._session.id[:8]
        log.warning("session %s: the buffer differs in %d voxels from the one answered", name, places.size)
        if dice < MINIMUM_DICE:
            raise Conflict(f"Its operations give another buffer than before (in {places.size} voxels).")
        with translate_engine_errors():
            await self._executors.engine(segmentation.correct, places, values)


def _compare(buffer: npt.NDArray[Any], data: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], float]:
    """Return the places at which the buffer differs from stored data, the stored values there, and the Dice."""
    answered = np.frombuffer(data, buffer.dtype)
    places = np.flatnonzero(answered != buffer.reshape(-1))
    return places, answered[places], compare_masks(buffer.reshape(-1), answered)[1]
