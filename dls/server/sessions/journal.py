"""Prompts and manifests to bytes and back: what a session's files hold. No files, clocks or threads.

A manifest is one line of JSON and its CRC-32 on the next. A journal is one record a prompt: length and CRC-32 of what
follows (little-endian), a line of JSON, and the drawn crop, one bit a voxel. A record that was cut off while it was
written is the last one, and does not count.
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

LONGEST_RECORD = 1 << 31
_HEAD = struct.Struct("<II")


class Broken(Exception):
    """A file that can't be trusted; says why."""


@dataclass(frozen=True)
class Image:
    """The image as it was sent: where its compressed file is, how long, and by which request."""

    path: str
    bytes: int
    geometry: Geometry
    request: str


@dataclass(frozen=True)
class Manifest:
    """What a session is, but for its prompts."""

    id: str
    model: str
    engine: str
    """The key of the engine: another one would answer the same prompts differently."""
    image: Image | None = None
    journal: str = ""
    """Name of the file with the prompts; a new one after each reset and each image."""
    number: int = 0
    """Of files made for this session so far."""


@dataclass(frozen=True)
class Record:
    """A prompt that was answered: by which request, and the CRC-32 of the mask it gave."""

    prompt: Prompt
    request: str
    mask: int


@dataclass
class Journal:
    """The records of a journal; `length` is how many bytes of it count."""

    records: list[Record] = field(default_factory=list)
    length: int = 0


def write_manifest(manifest: Manifest) -> bytes:
    """Return the manifest's file."""
    line = json.dumps({"format": SESSION_FORMAT, **asdict(manifest)}).encode()
    return line + b"\n%08x\n" % zlib.crc32(line)


def read_manifest(data: bytes) -> Manifest:
    """Read a manifest's file; raises Broken."""
    line, _, check = data.partition(b"\n")
    if check != b"%08x\n" % zlib.crc32(line):
        raise Broken("its checksum is wrong")
    try:
        said = json.loads(line)
        if said.pop("format") != SESSION_FORMAT:
            raise Broken("it was written by another version")
        image = said.pop("image")
        return Manifest(**said, image=_image(image) if image else None)
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"it makes no sense ({type(error).__name__})") from None


def _image(said: dict[str, Any]) -> Image:
    there = said.pop("geometry")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in there.items()}
    return Image(**said, geometry=Geometry(**values))


def write_record(record: Record) -> bytes:
    """Return the record as it is appended to a journal."""
    prompt = record.prompt
    said = {
        "kind": prompt.kind,
        "foreground": prompt.foreground,
        "origin": [int(at) for at in prompt.origin],
        "shape": list(prompt.mask.shape),
        "request": record.request,
        "mask": record.mask,
    }
    payload = json.dumps(said).encode() + b"\n" + np.packbits(prompt.mask, axis=None).tobytes()
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def read_journal(data: bytes) -> Journal:
    """Read the records up to the first that is not whole."""
    journal = Journal()
    while len(data) - journal.length >= _HEAD.size:
        length, check = _HEAD.unpack_from(data, journal.length)
        start = journal.length + _HEAD.size
        payload = data[start : start + length]
        if length > LONGEST_RECORD or len(payload) != length or zlib.crc32(payload) != check:
            break
        journal.records.append(_record(payload))
        journal.length = start + length
    return journal


def _record(payload: bytes) -> Record:
    line, _, bits = payload.partition(b"\n")
    try:
        said = json.loads(line)
        shape = tuple(int(side) for side in said["shape"])
        z, y, x = (int(at) for at in said["origin"])
        drawn = np.unpackbits(np.frombuffer(bits, np.uint8), count=int(np.prod(shape))).astype(bool).reshape(shape)
        prompt = Prompt(str(said["kind"]), bool(said["foreground"]), (z, y, x), drawn)
        return Record(prompt, str(said["request"]), int(said["mask"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Broken(f"a record makes no sense ({type(error).__name__})") from None
