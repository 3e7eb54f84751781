"""Names of images by what they contain, which laptop and host compute alike. Pure; standard library only.

A name is a SHA-256 and a length. Two files of one name hold the same image, but need not be the same bytes: the client
of nnInteractive compresses with several threads, and the blocks of an array come out in the order in which they were
ready. So an array's blocks are taken in the order of the image. Facts: "NNIA" frames are those of nninteractive 2.6
(inference/remote/serialization.py), chunks those of c-blosc2 (README_CHUNK_FORMAT.rst).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

MAGIC = b"NNIA\x01"
_HEAD = struct.Struct("<5sBBB")
_COUNT = struct.Struct("<I")
_LENGTHS = struct.Struct("<QQ")
_SIZES = struct.Struct("<III")
HEADER_BYTES = 32
"""Length of a chunk's header; a shorter one, of the first Blosc, is not looked into."""
EXTENDED, MEMCPYED = 0b101, 0b010
"""Flags of a chunk: that its header is the long one, and that it has no blocks because nothing is compressed."""


class _Odd(Exception):
    """The data are no array, or one of a form that is not known."""


def name_image(data: memoryview) -> str:
    """Return the name of an image that is a gzip member, an array or anything else, by its compressed bytes."""
    digest = hashlib.sha256()
    try:
        for part in _ordered(data):
            digest.update(_LENGTHS.pack(0, len(part)))
            digest.update(part)
    except (_Odd, struct.error):
        digest = hashlib.sha256(data)
    return f"{digest.hexdigest()}-{len(data)}"


def _ordered(data: memoryview) -> Iterator[memoryview]:
    """Yield the parts of an array in the order of the image; raises _Odd and struct.error."""
    magic, _, dimensions, length = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise _Odd
    at = _HEAD.size + length + 8 * dimensions
    (chunks,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    yield data[:at]
    for _ in range(chunks):
        _, size = _LENGTHS.unpack_from(data, at)
        start, at = at + _LENGTHS.size, at + _LENGTHS.size + size
        if at > len(data):
            raise _Odd
        yield data[start - _LENGTHS.size : start]
        yield from _blocks(data[start:at])
    yield data[at:]


def _blocks(chunk: memoryview) -> Iterator[memoryview]:
    """Yield a chunk's header and its blocks in the order of the image, without the table of their places."""
    flags = chunk[2] if len(chunk) > HEADER_BYTES else MEMCPYED
    if flags & MEMCPYED or flags & EXTENDED != EXTENDED:
        yield chunk
        return
    size, block_size, _ = _SIZES.unpack_from(chunk, 4)
    count = -(-size // block_size) if block_size else 0
    table = HEADER_BYTES + 4 * count
    if not count or table > len(chunk):
        raise _Odd
    starts = struct.unpack_from(f"<{count}i", chunk, HEADER_BYTES)
    order = sorted(starts)
    if order[0] < table or order[-1] > len(chunk):
        raise _Odd
    ends = dict(zip(order, [*order[1:], len(chunk)], strict=True))
    yield chunk[:HEADER_BYTES]
    yield chunk[table : order[0]]
    for start in starts:
        yield chunk[start : ends[start]]
