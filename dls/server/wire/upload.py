"""Bytes to arrays: what ITK-SNAP sends, with no sockets, clocks or threads; `masks` is the way back.

An upload is `multipart/form-data` with the part `file` first and `metadata` after it, so the size of the volume is
known only when the pixels have passed. `file` is one gzip member of little-endian float32, x fastest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

import multipart
import numpy as np
from isal import igzip_lib, isal_zlib

from dls.errors import BadRequest, TooLarge
from dls.server.shared_memory import SPARSE, SharedBlock
from dls.server.volume import Bool, Geometry, Volume
from dls.server.wire import metadata

BLOCK = 1 << 20
"""Bytes inflated at a time."""
UNSEEN_BYTES = 32 << 20
UNSEEN_RATIO = 16
"""While the dimensions are unknown, no more is inflated than 32 MiB and 16 times what has arrived.

Deflate shrinks up to 1032 times, so a bomb would be swallowed whole before its metadata shows what it is. Real images
shrink 1.5 to 10 times and never meet this limit; what is held back (an image of zeros, say) waits, still compressed.
"""
METADATA_BYTES = 1 << 16
INVALID: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]  # its stub calls the class an instance


class Sink(Protocol):
    """Takes the inflated bytes, block by block."""

    def write(self, block: bytes) -> None:
        """Take the next bytes, however many."""


class ImageSink:
    """Keeps every byte, in memory that the engine's process can map; it is the volume in the end."""

    def __init__(self, most_bytes: int) -> None:
        # Only what is written takes memory. Where blocks are files, they are made when the size is known.
        self._shared = SharedBlock(most_bytes + BLOCK) if SPARSE else None
        self._buffer = bytearray()
        self._size = 0

    def write(self, block: bytes) -> None:
        """Append the block."""
        if self._shared is None:
            self._buffer += block
        else:
            self._shared.append(block)
        self._size += len(block)

    def volume(self, geometry: Geometry) -> Volume:
        """Return the image, without a copy."""
        if geometry.components != 1:
            raise BadRequest(
                f"The image has {geometry.components} components per pixel; the model takes images with one. "
                "Choose a single component in ITK-SNAP."
            )
        if self._shared is None:
            data = np.frombuffer(self._buffer, "<f4").reshape(geometry.shape)
            return Volume(data.astype(np.float32, copy=False), geometry)
        self._shared.truncate(self._size)
        return Volume(self._shared.array(geometry.shape, "<f4"), geometry, self._shared)

    def close(self) -> None:
        """Let go of what came."""
        if self._shared is not None:
            self._shared.close()


class DrawingSink:
    """Keeps which voxels are not zero: of a whole volume only the blocks in which something is drawn."""

    def __init__(self) -> None:
        self._blocks: list[tuple[int, Bool]] = []
        self._voxels = 0
        self._rest = b""

    def write(self, block: bytes) -> None:
        """Scan the block; it is dropped when it is empty."""
        block = self._rest + block if self._rest else block
        whole = np.frombuffer(block, "<f4", count=len(block) // 4)
        self._rest = block[4 * whole.size :]
        drawn = whole != 0
        if drawn.any():
            self._blocks.append((self._voxels, drawn))
        self._voxels += whole.size

    def crop(self, geometry: Geometry) -> tuple[tuple[int, int, int], Bool] | None:
        """Return the origin (z, y, x) and the mask of the smallest crop with all that is drawn; None for nothing."""
        found = [np.flatnonzero(drawn) + start for start, drawn in self._blocks]
        if not found:
            return None
        z, y, x = np.unravel_index(np.concatenate(found), geometry.shape)
        low = int(z.min()), int(y.min()), int(x.min())
        high = int(z.max()), int(y.max()), int(x.max())
        mask = np.zeros([stop - start + 1 for start, stop in zip(low, high, strict=True)], bool)
        mask[z - low[0], y - low[1], x - low[2]] = True
        return low, mask


class Inflater:
    """Inflates one gzip member as it arrives, never past what it may hold."""

    def __init__(self, sink: Sink, most_bytes: int) -> None:
        self._sink = sink
        self._most = most_bytes
        self._expected: int | None = None
        self._stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._waiting: list[bytes] = []
        self._arrived = 0
        self._made = 0

    def expect(self, size: int) -> None:
        """Say how many bytes there must be in the end; what was held back goes on."""
        self._expected = size
        self._check_length()
        self.feed(b"")

    def feed(self, data: bytes) -> None:
        """Take the next compressed bytes. Raises BadRequest for what is not gzip, TooLarge for too much."""
        self._arrived += len(data)
        if data:
            self._waiting.append(data)
        while self._waiting or not (self._stream.needs_input or self._stream.eof):
            room = self._room()
            if room == 0:
                return
            piece = self._waiting.pop(0) if self._stream.needs_input and self._waiting else b""
            if self._stream.eof:
                raise BadRequest("There is more data after the image's gzip member; it must be one.")
            self._inflate(piece, room)

    def _room(self) -> int:
        limit = self._most if self._expected is None else min(self._most, self._expected)
        if self._expected is None:
            unseen = UNSEEN_BYTES + UNSEEN_RATIO * self._arrived
            if self._made >= unseen and unseen <= limit:
                return 0
        # One byte more than fits: that is how too much shows itself.
        return min(BLOCK, limit + 1 - self._made)

    def _inflate(self, piece: bytes, room: int) -> None:
        try:
            made = self._stream.decompress(piece, room)
        except (INVALID, EOFError, ValueError):
            raise BadRequest("The image's data is not valid gzip.") from None
        self._made += len(made)
        self._check_length()
        if made:
            self._sink.write(made)

    def _check_length(self) -> None:
        if self._expected is not None and self._made > self._expected:
            raise TooLarge("The image's data is longer than its dimensions say.")
        if self._made > self._most:
            raise TooLarge(f"The image is larger than the {self._most >> 20} MiB that this server takes.")

    def finish(self) -> None:
        """Check that the stream has ended and is as long as expected."""
        if not self._stream.eof:
            raise BadRequest("The image's data is cut short.")
        if self._expected is not None and self._made != self._expected:
            raise BadRequest("The image's data is shorter than its dimensions say.")
        if self._stream.unused_data:
            raise BadRequest("There is more data after the image's gzip member; it must be one.")


class Upload:
    """One multipart body, fed as it arrives.

    `check` sees the geometry as soon as it is known and may refuse it; `keep` gets the compressed bytes as they come.
    """

    def __init__(
        self,
        content_type: str,
        sink: Sink,
        most_bytes: int,
        check: Callable[[Geometry], None],
        keep: Callable[[bytes], None] = lambda data: None,
    ) -> None:
        self._parser = multipart.PushMultipartParser(_boundary(content_type), max_segment_count=8)
        self._inflater = Inflater(sink, most_bytes)
        self._most = most_bytes
        self._check = check
        self._keep = keep
        self._part = ""
        self._seen: set[str] = set()
        self._metadata = bytearray()
        self._geometry: Geometry | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body; raises RequestError as soon as something is wrong."""
        try:
            for event in self._parser.parse(data):
                self._take(event)
        except multipart.MultipartError:
            raise BadRequest("The request's body is not valid multipart/form-data.") from None

    def _take(self, event: object) -> None:
        if isinstance(event, multipart.MultipartSegment):
            self._part = str(event.name or "")
            if self._part in self._seen:
                raise BadRequest(f"The request has two parts named {self._part[:40]!r}.")
            self._seen.add(self._part)
        elif event is None:
            if self._part == "metadata":
                self._read_metadata()
            self._part = ""
        elif isinstance(event, bytes | bytearray):
            self._payload(bytes(event))

    def _payload(self, data: bytes) -> None:
        if self._part == "file":
            self._inflater.feed(data)
            self._keep(data)
        elif self._part == "metadata":
            self._metadata += data
            if len(self._metadata) > METADATA_BYTES:
                raise TooLarge("The image's metadata is too long.")

    def _read_metadata(self) -> None:
        geometry = metadata.parse(bytes(self._metadata))
        size = 4 * geometry.voxels * geometry.components
        if size > self._most:
            raise TooLarge(
                f"The image needs {size >> 20} MiB; this server takes up to {self._most >> 20} MiB. "
                "Crop or resample it in ITK-SNAP."
            )
        self._check(geometry)
        self._geometry = geometry
        self._inflater.expect(size)

    def finish(self) -> Geometry:
        """Check that the body is whole and return the geometry."""
        self.feed(b"")
        for part in ("file", "metadata"):
            if part not in self._seen:
                raise BadRequest(f"The request has no part named {part!r}.")
        if self._geometry is None:
            raise BadRequest("The request's body is cut short.")
        self._inflater.finish()
        return self._geometry


def _boundary(content_type: str) -> str:
    kind, options = multipart.parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?", boundary):
        raise BadRequest("The request's body must be multipart/form-data with a boundary.")
    return str(boundary)
