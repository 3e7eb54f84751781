"""The records of an official session's journal, as JSON and bytes. No files, clocks or threads.

A record is a line of JSON, and after it the body of the request, if it had an array: as it was received, so that a
replay gives the library what the request gave it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dls.server.operations import Bounds, Carried, Operation, to_bounds


@dataclass(frozen=True)
class OfficialAnswer:
    """What an operation was answered with, but for the voxels: those lie in the buffer."""

    ran: bool = False
    """Whether something was predicted or undone; otherwise the client ignores any box."""
    box: Bounds | None = None
    """The part of the buffer that was sent."""
    kept: Bounds | None = None
    """A part of the buffer that earlier answers should have brought, and this one could not."""


@dataclass(frozen=True)
class OfficialRecord:
    """An operation that was carried out, the request that asked for it, its answer, and the state after it."""

    operation: Operation
    request: str
    answer: OfficialAnswer
    carried: Carried
    buffer_crc: int
    """CRC-32 of the buffer; 0 where there is none."""

    def encode(self) -> bytes:
        """Return the record as it stands in a journal."""
        fields = {
            "operation": self.operation.name,
            "fields": self.operation.fields,
            "request": self.request,
            "answer": vars(self.answer),
            "carried": self.carried.encode(),
            "buffer": self.buffer_crc,
        }
        return json.dumps(fields).encode() + b"\n" + self.operation.body

    @classmethod
    def decode(cls, payload: bytes) -> OfficialRecord:
        """Read what `encode` returned; raises ValueError, KeyError or TypeError."""
        line, _, body = payload.partition(b"\n")
        fields = json.loads(line)
        answer = fields["answer"]
        return cls(
            Operation(str(fields["operation"]), dict(fields["fields"]), body),
            str(fields["request"]),
            OfficialAnswer(bool(answer["ran"]), _decode_box(answer["box"]), _decode_box(answer["kept"])),
            Carried.decode(fields["carried"]),
            int(fields["buffer"]),
        )


def _decode_box(value: Any) -> Bounds | None:
    return None if value is None else to_bounds(value)
