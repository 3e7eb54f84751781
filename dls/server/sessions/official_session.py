"""One official client's session: its state, and which part of the buffer an answer has to bring.

Its client holds a copy of the buffer, and pastes into it whatever box an answer brings. An answer that never arrived
would leave that copy wrong for good, so the next one brings its box too.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dls.server.engines.base import OfficialSegmentation
from dls.server.operations import (
    ADD_INITIAL_SEG,
    OVERWRITING,
    RESET,
    SET_TARGET_BUFFER,
    Bounds,
    Carried,
    Operation,
    Outcome,
    hull,
)
from dls.server.sessions.applied import AppliedRequests
from dls.server.sessions.files import SessionFiles
from dls.server.sessions.official_records import OfficialAnswer, OfficialRecord
from dls.server.sessions.session import Held, Session
from dls.server.volume import Box, Mask, union
from dls.server.wire import masks


@dataclass
class Delivery:
    """The fate of one answer."""

    is_missed: bool = False
    """Whether the answer has not reached the client, or nobody knows whether it has."""


@dataclass
class OfficialSession(Session):
    """A session whose operations are nnInteractive's own; it is asleep when `official` is None."""

    official: OfficialSegmentation | None = None
    carried: Carried = field(default_factory=Carried)
    """What the session carries now."""
    answer: OfficialAnswer = field(default_factory=OfficialAnswer)
    """The last answer."""
    delivery: Delivery = field(default_factory=Delivery)
    """The fate of the last answer."""

    @classmethod
    def read(cls, files: SessionFiles) -> OfficialSession:
        """Return the session that the files hold; nobody knows whether its last answer has reached the client."""
        last = files.last_operation
        carried = last.carried if last else files.manifest.carried
        assert carried is not None
        session = cls(files.manifest.id, files, AppliedRequests(files.last_request), carried=carried)
        if last is not None:
            session.answer, session.delivery = last.answer, Delivery(is_missed=True)
        return session

    @property
    def token(self) -> str:
        """The lease token by which the client names the session."""
        return self.id.replace("-", "")

    @property
    def is_awake(self) -> bool:
        """Whether the engine holds the session."""
        return self.official is not None

    def detach(self) -> Held | None:
        """Put the session to sleep, and return what the engine holds of it."""
        held, self.official = self.official, None
        return held

    @property
    def undelivered(self) -> Bounds | None:
        """The part of the buffer that earlier answers should have brought to the client."""
        return hull(self.answer.kept, self.answer.box if self.delivery.is_missed else None)


def settle(undelivered: Bounds | None, operation: Operation, outcome: Outcome) -> OfficialAnswer:
    """Return the answer to an operation, with what was not delivered before where the client takes it."""
    left = None if operation.name in OVERWRITING else undelivered
    if not outcome.ran:
        return OfficialAnswer(kept=left)
    return OfficialAnswer(True, hull(left, outcome.box))


def find_occupied(before: Box | None, operation: Operation, outcome: Outcome) -> Box | None:
    """Return a box outside which the buffer is 0 after an operation; `before` is that before it."""
    if operation.name in (RESET, SET_TARGET_BUFFER):
        return None
    buffer, box = outcome.carried.buffer, outcome.box
    if operation.name == ADD_INITIAL_SEG and buffer is not None:
        box = buffer.bounds
    return before if box is None else union(before, _to_slices(box))


def _to_slices(box: Bounds) -> Box:
    a, b, c = (slice(low, high) for low, high in box)
    return a, b, c


def view_bytes(buffer: npt.NDArray[Any]) -> Mask:
    """Return a buffer of any type as one byte a voxel, or as more of them in a longer row."""
    return buffer.view(np.uint8)


def store_operation(
    files: SessionFiles,
    operation: Operation,
    request: str,
    answer: OfficialAnswer,
    carried: Carried,
    buffer: npt.NDArray[Any] | None,
    occupied: Box | None,
) -> None:
    """Store the operation, and the buffer as it is after it, in the session's files; raises Exhausted."""
    member, crc = b"", 0
    if buffer is not None:
        member = masks.encode_mask(view_bytes(buffer), occupied)
        crc = masks.read_crc(member)
    files.append(OfficialRecord(operation, request, answer, carried, crc), member)


def buffer_crc(buffer: npt.NDArray[Any] | None) -> int:
    """Return the CRC-32 of a buffer, as `store_operation` stores it."""
    return 0 if buffer is None else zlib.crc32(buffer.data)
