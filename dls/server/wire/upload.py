"""Decodes the bodies that ITK-SNAP sends into arrays, without sockets, clocks or threads; `masks` encodes the answers.

An upload is `multipart/form-data` with the part `file` first and `metadata` after it, so the size of the volume is
known only after the voxels have been received. `file` is one gzip member of little-endian float32, x fastest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol

import multipart
import numpy as np
import numpy.typing as npt
from isal import igzip_lib, isal_zlib

from dls.errors import BadRequest, TooLarge
from dls.server.shared_memory import SPARSE, SharedBlock
from dls.server.volume import Bool, Geometry, Volume
from dls.server.wire import metadata

BLOCK_BYTES = 1 << 20
"""Maximum number of bytes inflated at a time."""
UNVERIFIED_BYTES = 32 << 20
"""Bytes that are inflated before the image's dimensions are known, plus `UNVERIFIED_RATIO` for each byte received."""
UNVERIFIED_RATIO = 16
"""Inflated bytes allowed for each compressed byte received while the dimensions are unknown.

Deflate compresses up to 1032 times, so without this limit a decompression bomb would be inflated completely before its
metadata shows that it is one. Real images compress 1.5 to 10 times and never meet the limit. Data beyond it (those of
an image of zeros, for example) stay compressed until the dimensions are known.
"""
EXPANSION = 1.25
"""Compressed bytes allowed for each inflated one: with zlib's worst setting, data grow by less than 15 %."""
EXPANSION_BYTES = 1 << 20
"""Compressed bytes allowed beside those; a deflate stream can go on without end and inflate to nothing."""
MAX_DRAWN_VOXELS = 4 << 20
"""The most voxels of one drawing: a whole slice of 2048 x 2048."""
DRAWN_VOXEL_BYTES = 112
"""Memory that an engine takes for each drawn voxel while it computes: 390 MB were measured for 4 Mi of them."""
CROP_COPIES = 4
"""How often a drawing's crop is in memory on its way to the engine: here, in the pipe, there, and in the prompt."""
MAX_METADATA_BYTES = 1 << 16
SECOND_MEMBER = "There is more data after the image's gzip member; it must be one."
"""Found while an image is inflated, or at its end: a second member would be a second image."""
INVALID: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]  # its stub declares the class as an instance


Take = Callable[[int], None]
Indices = npt.NDArray[np.intp]
Packed = npt.NDArray[np.uint8]


class Sink(Protocol):
    """A destination for the inflated bytes, which arrive in order and block by block."""

    def write(self, block: bytes) -> None:
        """Write the next bytes; a block may have any length."""


class ImageSink:
    """Collects an image in memory that the engine's process can map, so that the volume needs no copy."""

    def __init__(self, max_bytes: int) -> None:
        # A sparse block takes memory only where it is written. Elsewhere a block is created when its size is known.
        self._shared = SharedBlock(max_bytes + BLOCK_BYTES) if SPARSE else None
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
        """Return the image without copying it; raises BadRequest for an image of several components."""
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
        """Release the memory; a volume that was returned keeps its own mapping."""
        if self._shared is not None:
            self._shared.close()


class DrawingSink:
    """Records which voxels of a drawing are not zero, as bits, and keeps only the blocks that have any.

    `take` is called with the number of bytes that more of the drawing will take until it has been applied, and may
    raise RequestError.
    """

    def __init__(self, take: Take = lambda size: None) -> None:
        self._take = take
        self._blocks: list[tuple[int, int, Packed]] = []
        """A block's first voxel in the volume, its number of voxels, and which of them are drawn, as bits."""
        self._voxels = 0
        self._drawn = 0
        self._incomplete = b""
        """The first bytes of a voxel whose other bytes come with the next block."""

    def write(self, block: bytes) -> None:
        """Scan the block, and keep it only if something is drawn in it; raises TooLarge for too many drawn voxels."""
        block = self._incomplete + block if self._incomplete else block
        values = np.frombuffer(block, "<f4", count=len(block) // 4)
        self._incomplete = block[4 * values.size :]
        drawn = values != 0
        if count := int(np.count_nonzero(drawn)):
            self._drawn += count
            if self._drawn > MAX_DRAWN_VOXELS:
                raise TooLarge(f"More than {MAX_DRAWN_VOXELS:,} voxels are drawn. Draw on fewer slices, or less.")
            packed = np.packbits(drawn)
            self._take(packed.size + DRAWN_VOXEL_BYTES * count)
            self._blocks.append((self._voxels, drawn.size, packed))
        self._voxels += values.size

    def crop(self, geometry: Geometry) -> tuple[tuple[int, int, int], Bool] | None:
        """Return origin (z, y, x) and mask of the smallest crop that holds the drawing; None if nothing is drawn.

        It is found block by block: indices of all drawn voxels at once would take 32 bytes for each of them.
        """
        if not self._blocks:
            return None
        bounds = np.array([[(i.min(), i.max()) for i in indices] for indices in self._indices(geometry)])
        low, high = bounds[:, :, 0].min(0), bounds[:, :, 1].max(0) + 1
        self._take(CROP_COPIES * int(np.prod(high - low)))
        mask = np.zeros(high - low, bool)
        for z, y, x in self._indices(geometry):
            mask[z - low[0], y - low[1], x - low[2]] = True
        return (int(low[0]), int(low[1]), int(low[2])), mask

    def _indices(self, geometry: Geometry) -> Iterator[tuple[Indices, ...]]:
        for start, count, packed in self._blocks:
            drawn = np.flatnonzero(np.unpackbits(packed, count=count)) + start
            yield np.unravel_index(drawn, geometry.shape)


class Inflater:
    """Inflates one gzip member as it arrives, and never writes more than `max_bytes` to the sink."""

    def __init__(self, sink: Sink, max_bytes: int) -> None:
        self._sink = sink
        self._max_bytes = max_bytes
        self._expected: int | None = None
        self._stream = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._pending: list[bytes] = []
        self._received = 0
        self._inflated = 0

    def expect(self, size: int) -> None:
        """Set the length that the inflated data must have, and inflate the data that were waiting for it."""
        self._expected = size
        self._check_length()
        self.feed(b"")

    def feed(self, data: bytes) -> None:
        """Inflate the next compressed bytes; raises BadRequest if they are not gzip, TooLarge if they are too many."""
        self._received += len(data)
        if data:
            self._pending.append(data)
        while self._pending or not (self._stream.needs_input or self._stream.eof):
            size = self._block_size()
            if size == 0:
                return
            compressed = self._pending.pop(0) if self._stream.needs_input and self._pending else b""
            if self._stream.eof:
                raise BadRequest(SECOND_MEMBER)
            self._inflate(compressed, size)
        if self._received > EXPANSION * self._inflated + EXPANSION_BYTES:
            raise BadRequest("The image's data is not compressed: it is longer than what it stands for.")

    def _block_size(self) -> int:
        """Return how many bytes may be inflated now; 0 if that must wait for the dimensions."""
        limit = self._max_bytes if self._expected is None else min(self._max_bytes, self._expected)
        if self._expected is None:
            unverified = UNVERIFIED_BYTES + UNVERIFIED_RATIO * self._received
            if self._inflated >= unverified and unverified <= limit:
                return 0
        # Allow one byte more than the limit, so that data that are too long are noticed.
        return min(BLOCK_BYTES, limit + 1 - self._inflated)

    def _inflate(self, compressed: bytes, size: int) -> None:
        try:
            block = self._stream.decompress(compressed, size)
        except (INVALID, EOFError, ValueError):
            raise BadRequest("The image's data is not valid gzip.") from None
        self._inflated += len(block)
        self._check_length()
        if block:
            self._sink.write(block)

    def _check_length(self) -> None:
        if self._expected is not None and self._inflated > self._expected:
            raise TooLarge("The image's data is longer than its dimensions say.")
        if self._inflated > self._max_bytes:
            raise TooLarge(f"The image is larger than the {self._max_bytes >> 20} MiB that this server takes.")

    def finish(self) -> None:
        """Check that the stream has ended and has the expected length; raises BadRequest."""
        if not self._stream.eof:
            raise BadRequest("The image's data is cut short.")
        if self._expected is not None and self._inflated != self._expected:
            raise BadRequest("The image's data is shorter than its dimensions say.")
        if self._stream.unused_data:
            raise BadRequest(SECOND_MEMBER)


class Upload:
    """Parses one multipart body as it arrives.

    `check` is called with the geometry as soon as it is known and may raise RequestError; `save` is called with the
    compressed bytes of the image as they arrive.
    """

    def __init__(
        self,
        content_type: str,
        sink: Sink,
        max_bytes: int,
        check: Callable[[Geometry], None],
        save: Callable[[bytes], object] = lambda data: None,
    ) -> None:
        self._parser = multipart.PushMultipartParser(_parse_boundary(content_type), max_segment_count=8)
        self._inflater = Inflater(sink, max_bytes)
        self._max_bytes = max_bytes
        self._check = check
        self._save = save
        self._part = ""
        self._seen: set[str] = set()
        self._metadata = bytearray()
        self._geometry: Geometry | None = None
        self._is_held = False
        """Whether the image, or its beginning, does not come in the body."""

    def feed(self, data: bytes) -> None:
        """Parse the next bytes of the body; raises RequestError as soon as something is wrong."""
        try:
            for event in self._parser.parse(data):
                self._handle(event)
        except multipart.MultipartError:
            raise BadRequest("The request's body is not valid multipart/form-data.") from None

    def feed_file(self, data: bytes) -> None:
        """Take the next bytes of the image from somewhere else than the body; they are not saved."""
        self._is_held = True
        self._inflater.feed(data)

    def _handle(self, event: object) -> None:
        if isinstance(event, multipart.MultipartSegment):
            self._part = str(event.name or "")
            if self._part in self._seen:
                raise BadRequest(f"The request has two parts named {self._part[:40]!r}.")
            self._seen.add(self._part)
        elif event is None:
            if self._part == "metadata":
                self._parse_metadata()
            self._part = ""
        elif isinstance(event, bytes | bytearray):
            self._handle_data(bytes(event))

    def _handle_data(self, data: bytes) -> None:
        if self._part == "file":
            self._inflater.feed(data)
            self._save(data)
        elif self._part == "metadata":
            self._metadata += data
            if len(self._metadata) > MAX_METADATA_BYTES:
                raise TooLarge("The image's metadata is too long.")

    def _parse_metadata(self) -> None:
        geometry = metadata.parse(bytes(self._metadata))
        size = 4 * geometry.voxels * geometry.components
        if size > self._max_bytes:
            raise TooLarge(
                f"The image needs {size >> 20} MiB; this server takes up to {self._max_bytes >> 20} MiB. "
                "Crop or resample it in ITK-SNAP."
            )
        self._check(geometry)
        self._geometry = geometry
        self._inflater.expect(size)

    def finish(self) -> Geometry:
        """Check that the body is complete, and return the geometry; raises BadRequest."""
        self.feed(b"")
        for part in ("file", "metadata"):
            if part not in self._seen and not (part == "file" and self._is_held):
                raise BadRequest(f"The request has no part named {part!r}.")
        if self._geometry is None:
            raise BadRequest("The request's body is cut short.")
        self._inflater.finish()
        return self._geometry


def _parse_boundary(content_type: str) -> str:
    kind, options = multipart.parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if kind != "multipart/form-data" or not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]{0,198}[\x21-\x7e])?", boundary):
        raise BadRequest("The request's body must be multipart/form-data with a boundary.")
    return str(boundary)
