"""Encodes and decodes the contents of a session's files: the manifest and the journal. No files, clocks or threads.

A manifest is one line of JSON, and its CRC-32 on the next line. A journal holds one record per prompt: length and
CRC-32 (little-endian), a line of JSON, and the drawn crop with one bit per voxel. The CRC-32 of a record continues that
of the record before, and the first one continues that of the session's id and the journal's name. So a record that is
missing, repeated, in another place or from another session does not match. The manifest says where the journal ends; a
server that is killed between a record and the manifest leaves records beyond that end.

An official session's manifest has a format of its own and says what the session carried when its journal began;
`official_records` has its records.

In files of format 1, which the release before wrote, each record has a CRC-32 of its own, and no end is stored.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dls.contract import OFFICIAL_SESSION_FORMAT, SESSION_FORMAT, SESSION_FORMATS
from dls.server.operations import Carried
from dls.server.sessions.official_records import OfficialRecord
from dls.server.volume import Geometry, Prompt

MANIFEST_BYTES = 1024
"""A manifest is padded with spaces to a multiple of this length, so that a new one can be written over the old one."""
CHECK_BYTES = 10
"""Length of what follows the manifest's line: the CRC-32 between two ends of lines."""
MAX_RECORD_BYTES = 1 << 31
"""Maximum length of a record; a greater one in a journal is damage."""
_HEAD = struct.Struct("<II")
_LENGTH = struct.Struct("<I")


class DamagedFile(Exception):
    """A session's file is damaged or has another format; the message says what is wrong."""


@dataclass(frozen=True)
class Image:
    """Path and length of an image's compressed file, the image's grid, and the request that sent it."""

    path: str
    bytes: int
    geometry: Geometry
    request: str


@dataclass(frozen=True)
class JournalEnd:
    """Where a journal ends: the number of its records, their length in bytes, and the CRC-32 of the last one."""

    count: int = 0
    length: int = 0
    crc: int = 0


@dataclass(frozen=True)
class Manifest:
    """Everything about a session except its prompts."""

    id: str
    model: str
    engine: str
    """Key of the engine that the session was begun with; another engine would answer the same prompts differently."""
    image: Image | None = None
    journal: str = ""
    """Name of the file with the prompts, which is a new one after each reset and each image."""
    number: int = 0
    """Number of journals that the session has had so far."""
    end: JournalEnd | None = JournalEnd()
    """Where the journal ends; None in a manifest of format 1, whose records are not chained."""
    carried: Carried | None = None
    """What an official session carried when its journal began; None for a session of ITK-SNAP."""

    @property
    def mask(self) -> str:
        """Name of the file with the mask that the last prompt was answered with; empty if there is none."""
        return f"mask-{self.number}-{self.end.count}.gz" if self.end and self.end.count else ""


@dataclass(frozen=True)
class Record:
    """A prompt that was answered, the request that sent it, and the CRC-32 of the mask that it resulted in."""

    prompt: Prompt
    request: str
    mask_crc: int


@dataclass
class Journal:
    """The records of a journal that match, and where the journal ends before the first of them and after each."""

    records: list[Record | OfficialRecord] = field(default_factory=list)
    ends: list[JournalEnd] = field(default_factory=lambda: [JournalEnd()])


def next_journal(manifest: Manifest) -> Manifest:
    """Return the manifest with a new, empty journal."""
    number = manifest.number + 1
    name = f"prompts-{number}"
    return replace(manifest, number=number, journal=name, end=start_of(manifest.id, name))


def start_of(session: str, name: str) -> JournalEnd:
    """Return the end of an empty journal, whose CRC-32 is that of the session's id and the journal's name."""
    return JournalEnd(crc=zlib.crc32(f"{session}/{name}".encode()))


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the contents of the manifest's file; a manifest of format 1 is encoded as it was."""
    image, end = manifest.image, manifest.end
    fields = {"format": SESSION_FORMAT if end else 1, **vars(manifest)}  # `asdict` would copy, which takes 80 us
    carried = fields.pop("carried")
    if carried is not None:
        fields |= {"format": OFFICIAL_SESSION_FORMAT, "carried": carried.encode()}
    fields["image"] = image and {**vars(image), "geometry": vars(image.geometry)}
    if end is None:
        del fields["end"]
    else:
        fields["end"] = vars(end)
    line = json.dumps(fields).encode()
    if end is not None:
        line += b" " * (-(len(line) + CHECK_BYTES) % MANIFEST_BYTES)
    return line + b"\n%08x\n" % zlib.crc32(line)


def decode_manifest(data: bytes) -> Manifest:
    """Decode the contents of a manifest's file; raises DamagedFile."""
    line, _, check = data.partition(b"\n")
    if check != b"%08x\n" % zlib.crc32(line):
        raise DamagedFile("its checksum is wrong")
    try:
        fields = json.loads(line)
        version = fields.pop("format")
        if version not in SESSION_FORMATS:
            raise DamagedFile("it was written by another version")
        image = fields.pop("image")
        end = JournalEnd(**fields.pop("end")) if version != 1 else None
        carried = Carried.decode(fields.pop("carried")) if version == OFFICIAL_SESSION_FORMAT else None
        return Manifest(**fields, image=_decode_image(image) if image else None, end=end, carried=carried)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"it makes no sense ({type(error).__name__})") from None


def _decode_image(fields: dict[str, Any]) -> Image:
    geometry: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.pop("geometry").items()
    }
    return Image(**fields, geometry=Geometry(**geometry))


def encode_record(record: Record | OfficialRecord, before: JournalEnd) -> tuple[bytes, JournalEnd]:
    """Return the bytes that are appended for the record to a journal with that end, and the journal's new end."""
    payload = record.encode() if isinstance(record, OfficialRecord) else _encode_prompt(record)
    crc = _chained_crc(payload, before)
    end = JournalEnd(before.count + 1, before.length + _HEAD.size + len(payload), crc)
    return _HEAD.pack(len(payload), crc) + payload, end


def _encode_prompt(record: Record) -> bytes:
    prompt = record.prompt
    fields = {
        "kind": prompt.kind,
        "foreground": prompt.foreground,
        "origin": [int(at) for at in prompt.origin],
        "shape": list(prompt.mask.shape),
        "request": record.request,
        "mask": record.mask_crc,
    }
    return json.dumps(fields).encode() + b"\n" + np.packbits(prompt.mask, axis=None).tobytes()


def _chained_crc(payload: bytes, before: JournalEnd) -> int:
    return zlib.crc32(payload, zlib.crc32(_LENGTH.pack(len(payload)), before.crc))


def decode_journal(data: bytes, manifest: Manifest) -> Journal:
    """Decode the records of the manifest's journal up to the first one that is incomplete or does not match."""
    is_chained = manifest.end is not None
    end = start_of(manifest.id, manifest.journal)
    journal = Journal(ends=[end])
    while len(data) - end.length >= _HEAD.size:
        length, check = _HEAD.unpack_from(data, end.length)
        start = end.length + _HEAD.size
        payload = data[start : start + length]
        if not 0 < length <= MAX_RECORD_BYTES or len(payload) != length:  # zeros are no record
            break
        if check != (_chained_crc(payload, end) if is_chained else zlib.crc32(payload)):
            break
        journal.records.append(_decode_record(payload, manifest))
        end = JournalEnd(end.count + 1, start + length, check)
        journal.ends.append(end)
    return journal


def _decode_record(payload: bytes, manifest: Manifest) -> Record | OfficialRecord:
    try:
        return _decode_prompt(payload) if manifest.carried is None else OfficialRecord.decode(payload)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"a record makes no sense ({type(error).__name__})") from None


def _decode_prompt(payload: bytes) -> Record:
    line, _, bits = payload.partition(b"\n")
    fields = json.loads(line)
    shape = tuple(int(side) for side in fields["shape"])
    z, y, x = (int(at) for at in fields["origin"])
    drawn = np.unpackbits(np.frombuffer(bits, np.uint8), count=int(np.prod(shape))).astype(bool).reshape(shape)
    prompt = Prompt(str(fields["kind"]), bool(fields["foreground"]), (z, y, x), drawn)
    return Record(prompt, str(fields["request"]), int(fields["mask"]))
