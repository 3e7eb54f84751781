"""Encodes and decodes the contents of a session's files: the manifest and the journal. No files, clocks or threads.

A manifest is one line of JSON, and its CRC-32 on the next line. A journal holds one record per prompt: length and
CRC-32 of what follows (little-endian), a line of JSON, and the drawn crop with one bit per voxel. Only the last record
can be incomplete, if the server was killed while it wrote it; it is ignored.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dls.contract import SESSION_FORMAT
from dls.server.volume import Geometry, Prompt

MAX_RECORD_BYTES = 1 << 31
"""Maximum length of a record; a greater one in a journal is damage."""
_HEAD = struct.Struct("<II")


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


@dataclass(frozen=True)
class Record:
    """A prompt that was answered, the request that sent it, and the CRC-32 of the mask that it resulted in."""

    prompt: Prompt
    request: str
    mask_crc: int


@dataclass
class Journal:
    """The complete records of a journal; `length` is how many bytes they take."""

    records: list[Record] = field(default_factory=list)
    length: int = 0


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the contents of the manifest's file."""
    line = json.dumps({"format": SESSION_FORMAT, **asdict(manifest)}).encode()
    return line + b"\n%08x\n" % zlib.crc32(line)


def decode_manifest(data: bytes) -> Manifest:
    """Decode the contents of a manifest's file; raises DamagedFile."""
    line, _, check = data.partition(b"\n")
    if check != b"%08x\n" % zlib.crc32(line):
        raise DamagedFile("its checksum is wrong")
    try:
        fields = json.loads(line)
        if fields.pop("format") != SESSION_FORMAT:
            raise DamagedFile("it was written by another version")
        image = fields.pop("image")
        return Manifest(**fields, image=_decode_image(image) if image else None)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"it makes no sense ({type(error).__name__})") from None


def _decode_image(fields: dict[str, Any]) -> Image:
    geometry: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.pop("geometry").items()
    }
    return Image(**fields, geometry=Geometry(**geometry))


def encode_record(record: Record) -> bytes:
    """Return the bytes that are appended to a journal for the record."""
    prompt = record.prompt
    fields = {
        "kind": prompt.kind,
        "foreground": prompt.foreground,
        "origin": [int(at) for at in prompt.origin],
        "shape": list(prompt.mask.shape),
        "request": record.request,
        "mask": record.mask_crc,
    }
    payload = json.dumps(fields).encode() + b"\n" + np.packbits(prompt.mask, axis=None).tobytes()
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def decode_journal(data: bytes) -> Journal:
    """Decode the records up to the first one that is incomplete or damaged."""
    journal = Journal()
    while len(data) - journal.length >= _HEAD.size:
        length, check = _HEAD.unpack_from(data, journal.length)
        start = journal.length + _HEAD.size
        payload = data[start : start + length]
        if length > MAX_RECORD_BYTES or len(payload) != length or zlib.crc32(payload) != check:
            break
        journal.records.append(_decode_record(payload))
        journal.length = start + length
    return journal


def _decode_record(payload: bytes) -> Record:
    line, _, bits = payload.partition(b"\n")
    try:
        fields = json.loads(line)
        shape = tuple(int(side) for side in fields["shape"])
        z, y, x = (int(at) for at in fields["origin"])
        drawn = np.unpackbits(np.frombuffer(bits, np.uint8), count=int(np.prod(shape))).astype(bool).reshape(shape)
        prompt = Prompt(str(fields["kind"]), bool(fields["foreground"]), (z, y, x), drawn)
        return Record(prompt, str(fields["request"]), int(fields["mask"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"a record makes no sense ({type(error).__name__})") from None
