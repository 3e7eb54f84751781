"""Reads what an NNIA frame says of the array in it, so that it can be refused before anything is inflated.

NNIA is how nnInteractive's own protocol packs an array (`serialization.py` of nninteractive 2.6.0), little-endian:

    "NNIA" | u8 version | u8 codec | u8 ndim | u8 length of the name | name of the dtype | ndim x i64 shape
    u32 number of chunks, and for each: u64 plain length | u64 packed length | a blosc2 frame of that packed length

A blosc2 frame says its own lengths: u32 plain at byte 4 and u32 packed at byte 12 (its header is 16 bytes at least).
Nothing here needs blosc2.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dls.errors import BadRequest

MAGIC, VERSION, CODECS = b"NNIA", 1, (1, 2)
KINDS = "biuf"
"""Kinds of dtype that an array may have: bool, int, unsigned, float."""
MAX_ITEM_BYTES = 8
"""Largest voxel; numpy has larger ones, which no client sends."""
MAX_CHUNK_BYTES = 1 << 30
"""Most plain bytes that a chunk has."""
MIN_CHUNK_BYTES = 1 << 16
"""Fewest plain bytes that a chunk has, but for one: clients send chunks of MAX_CHUNK_BYTES."""
MIN_FRAME_BYTES = 16
"""Length of a blosc2 frame's header."""
_START = struct.Struct("<4sBBBB")
_COUNT = struct.Struct("<I")
_CHUNK = struct.Struct("<QQ")


@dataclass(frozen=True)
class Header:
    """What the head of a frame says: shape, type, and where the chunks begin."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    length: int
    chunks: int

    @property
    def bytes(self) -> int:
        """Number of bytes of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def longest(self) -> int:
        """Most bytes that a whole frame with this head may have: blosc2 adds little to what it can't compress."""
        return self.length + self.bytes + self.bytes // 64 + (self.chunks + 1) * 4096


def read_header(data: bytes) -> Header | None:
    """Read the head of a frame; None as long as it is not complete. Raises BadRequest for nonsense."""
    if MAGIC[: len(data)] != data[: len(MAGIC)]:
        raise BadRequest("The body is not an array as nnInteractive's clients pack it.")
    if len(data) < _START.size:
        return None
    _, version, codec, ndim, length = _START.unpack_from(data)
    if version != VERSION or codec not in CODECS:
        raise BadRequest(f"The array is packed in a way that this server does not know ({version}, {codec}).")
    end = _START.size + length + 8 * ndim
    if len(data) < end + _COUNT.size:
        return None
    dtype = _read_dtype(data[_START.size : _START.size + length])
    shape = struct.unpack_from(f"<{ndim}q", data, _START.size + length)
    (chunks,) = _COUNT.unpack_from(data, end)
    header = Header(shape, dtype, end + _COUNT.size, chunks)
    if not shape or min(shape) < 1:
        raise BadRequest(f"The array is empty: its shape is {list(shape)}.")
    if not 0 < chunks <= header.bytes // MIN_CHUNK_BYTES + 1 or header.bytes > chunks * MAX_CHUNK_BYTES:
        raise BadRequest(f"An array of the shape {list(shape)} does not fit {chunks} chunks.")
    return header


def _read_dtype(name: bytes) -> npt.DTypeLike:
    try:
        dtype = np.dtype(name.decode("ascii"))
    except (ValueError, TypeError, SyntaxError):
        dtype = np.dtype(object)
    if dtype.kind not in KINDS or dtype.itemsize > MAX_ITEM_BYTES or not dtype.isnative:
        raise BadRequest(f"This server takes no arrays of the type {name[:40].decode('ascii', 'replace')!r}.")
    return dtype


def check_length(header: Header, length: int) -> None:
    """Raise BadRequest for a head that promises more chunks than the whole body can hold; 0 for an unknown length."""
    if length and length < header.length + header.chunks * (_CHUNK.size + MIN_FRAME_BYTES):
        raise BadRequest("The array is cut short: its head promises more than its body holds.")


def check_chunks(header: Header, data: Any, length: int) -> None:
    """Raise BadRequest unless the lengths that the chunks say add up; `data` is a buffer of that length."""
    at, plain_bytes = header.length, 0
    for _ in range(header.chunks):
        if at + _CHUNK.size + MIN_FRAME_BYTES > length:
            raise BadRequest("The array is cut short: its head promises more than its body holds.")
        plain, packed = _CHUNK.unpack_from(data, at)
        start = at + _CHUNK.size
        (said_plain,), (said_packed,) = _COUNT.unpack_from(data, start + 4), _COUNT.unpack_from(data, start + 12)
        if (plain, packed) != (said_plain, said_packed) or packed < MIN_FRAME_BYTES:
            raise BadRequest("The array is damaged: a chunk and the frame in it say different lengths.")
        at, plain_bytes = start + packed, plain_bytes + plain
    if at != length or plain_bytes != header.bytes:
        raise BadRequest("The array is damaged: its chunks do not add up to what its head promises.")
