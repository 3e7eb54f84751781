"""The head of a packed array is read, and what it promises is checked, without inflating anything."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from dls.errors import BadRequest
from dls.server.wire import nnia
from tests.server.official.lease import pack

CHUNK_AT = len(b"NNIA") + 4 + len(b"int16") + 3 * 8 + 4
"""Where the first chunk of a packed int16 array of three dimensions begins."""


def packed(shape: tuple[int, ...] = (3, 40, 50), dtype: str = "int16") -> bytes:
    return pack(np.random.default_rng(0).integers(0, 2, shape).astype(dtype))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 40, 50), (1, 3, 4, 5), (7,)])
def test_what_the_library_packs_is_read(shape: tuple[int, ...], dtype: str) -> None:
    """Shape, type and number of bytes are the array's, and the lengths of its chunks add up."""
    body = packed(shape, dtype)
    header = nnia.read_header(body)
    assert header is not None and header.shape == shape and np.dtype(header.dtype) == dtype
    assert header.bytes == np.prod(shape) * np.dtype(dtype).itemsize and len(body) <= header.longest
    nnia.check_length(header, len(body))
    nnia.check_chunks(header, body, len(body))


def test_a_head_that_is_not_complete_is_waited_for() -> None:
    """Of every beginning of a frame the head is either read or not there yet."""
    body = packed()
    assert [nnia.read_header(body[:end]) for end in range(CHUNK_AT)] == [None] * CHUNK_AT
    assert nnia.read_header(body[:CHUNK_AT]) is not None


def frame(dtype: bytes = b"uint8", shape: tuple[int, ...] = (2, 3, 4), chunks: int = 1, version: int = 1) -> bytes:
    start = struct.pack("<4sBBBB", b"NNIA", version, 1, len(shape), len(dtype))
    return start + dtype + struct.pack(f"<{len(shape)}qI", *shape, chunks)


@pytest.mark.parametrize(
    "head",
    [
        b"PNG",
        frame(version=2),
        frame(shape=()),
        frame(shape=(2, -3, 4)),
        frame(shape=(2, 0, 4)),
        frame(dtype=b"object"),
        frame(dtype=b"complex64"),
        frame(dtype=b"str"),
        frame(dtype=b"i4,i4"),
        frame(dtype=b"longdouble"),
        frame(dtype=b">i2"),
        frame(dtype=b"no"),
        frame(dtype=b"\xff\xfe"),
        frame(chunks=0),
        frame(chunks=4_000_000_000),
        frame(shape=(1 << 20, 1 << 20, 1 << 10)),
    ],
)
def test_nonsense_is_refused(head: bytes) -> None:
    """Unknown versions and types, absurd shapes, and chunks that can't hold the array are refused by the head alone."""
    with pytest.raises(BadRequest):
        nnia.read_header(head)


def test_lengths_that_do_not_add_up_are_refused() -> None:
    """A frame that is cut short, longer than it says, or whose chunk says two lengths is refused."""
    body = packed()
    header = nnia.read_header(body)
    assert header is not None
    for length in (CHUNK_AT, CHUNK_AT + 20, len(body) - 1):
        with pytest.raises(BadRequest):
            nnia.check_chunks(header, body, length)
    with pytest.raises(BadRequest):
        nnia.check_chunks(header, body + b"x", len(body) + 1)
    for at in (CHUNK_AT, CHUNK_AT + 8, CHUNK_AT + 20, CHUNK_AT + 28):
        changed = bytearray(body)
        changed[at] ^= 1
        with pytest.raises(BadRequest):
            nnia.check_chunks(header, bytes(changed), len(body))
    with pytest.raises(BadRequest):
        nnia.check_length(header, CHUNK_AT + 10)
    nnia.check_length(header, 0)
