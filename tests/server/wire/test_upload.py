"""Bodies of uploads are decoded into images and drawings, and bad ones are refused."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from dls.errors import BadRequest, TooLarge
from dls.server.volume import Geometry
from dls.server.wire.upload import DrawingSink, ImageSink, Inflater, Sink, Upload
from tests.support.itksnap import described, form, packed

LIMIT = 1 << 30


def split(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def receive(sink: Sink, data: bytes, content_type: str, size: int = 4096, limit: int = LIMIT) -> Geometry:
    upload = Upload(content_type, sink, limit, lambda geometry: None)
    for piece in split(data, size):
        upload.feed(piece)
    return upload.finish()


VOLUME = np.random.default_rng(0).normal(size=(5, 7, 9)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("order", ["file first", "metadata first"])
def test_an_image_is_decoded_whatever_the_chunks(size: int, order: str) -> None:
    """The image is the same whatever chunks the body arrives in, and whichever part comes first."""
    parts = [("file", packed(VOLUME)), ("metadata", described(VOLUME.shape))]
    sink = ImageSink(LIMIT)
    geometry = receive(sink, *form(parts if order == "file first" else parts[::-1]), size=size)
    volume = sink.volume(geometry)
    assert volume.data.dtype == np.float32 and volume.data.flags.writeable
    np.testing.assert_array_equal(volume.data, VOLUME)


@pytest.mark.parametrize("size", [3, 1000, 1 << 20])
def test_a_drawing_is_decoded_as_its_smallest_crop(size: int) -> None:
    """The crop holds exactly the drawn voxels, whether they are on one slice, far apart or everywhere."""
    for where in ([(2, 3, 4)], [(0, 0, 0), (4, 6, 8)], [(1, y, x) for y in range(7) for x in range(9)]):
        drawn = np.zeros((5, 7, 9), np.float32)
        for voxel in where:
            drawn[voxel] = 1
        sink = DrawingSink()
        geometry = receive(sink, *form([("file", packed(drawn)), ("metadata", described(drawn.shape))]), size=size)
        crop = sink.crop(geometry)
        assert crop is not None
        origin, mask = crop
        again = np.zeros(drawn.shape, bool)
        again[tuple(slice(o, o + n) for o, n in zip(origin, mask.shape, strict=True))] = mask
        np.testing.assert_array_equal(again, drawn != 0)
        for side, indices in zip(mask.shape, np.nonzero(mask), strict=True):
            assert indices.min() == 0 and indices.max() == side - 1


def test_an_empty_drawing_has_no_crop() -> None:
    """A drawing without any voxel has no crop."""
    sink = DrawingSink()
    empty = np.zeros((5, 7, 9), np.float32)
    assert sink.crop(receive(sink, *form([("file", packed(empty)), ("metadata", described(empty.shape))]))) is None


GOOD = described(VOLUME.shape)
RAW = VOLUME.tobytes()


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (b"", BadRequest),
        (b"not gzip at all", BadRequest),
        (RAW, BadRequest),
        (zlib.compress(RAW), BadRequest),
        (gzip.compress(RAW)[:-9], BadRequest),
        (gzip.compress(RAW)[:-1], BadRequest),
        (gzip.compress(RAW)[:-8] + b"\0" * 8, BadRequest),
        (gzip.compress(RAW[:-4]), BadRequest),
        (gzip.compress(RAW[:-1]), BadRequest),
        (gzip.compress(RAW + b"\0"), TooLarge),
        (gzip.compress(RAW) + gzip.compress(b"more"), BadRequest),
        (gzip.compress(RAW) + b"trailing", BadRequest),
    ],
)
@pytest.mark.parametrize("size", [11, 1 << 20])
def test_a_bad_file_is_refused(file: bytes, error: type[Exception], size: int) -> None:
    """A file is refused if it is not one complete gzip member of the right length with the right CRC."""
    with pytest.raises(error):
        receive(ImageSink(LIMIT), *form([("file", file), ("metadata", GOOD)]), size=size)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [("file", packed(VOLUME))],
        [("metadata", GOOD)],
        [("file", packed(VOLUME)), ("file", packed(VOLUME)), ("metadata", GOOD)],
        [("file", packed(VOLUME)), ("metadata", b"{")],
    ],
)
def test_missing_and_repeated_parts_are_refused(parts: list[tuple[str, bytes]]) -> None:
    """A body needs one part `file` and one part `metadata`, which must be valid."""
    with pytest.raises(BadRequest):
        receive(ImageSink(LIMIT), *form(parts))


def test_a_body_cut_short_is_refused() -> None:
    """A body is refused wherever it is cut, even in the closing boundary."""
    data, content_type = form([("file", packed(VOLUME)), ("metadata", GOOD)])
    for length in range(0, len(data) - 4, 37):
        with pytest.raises(BadRequest):
            receive(ImageSink(LIMIT), data[:length], content_type)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=x"],
)
def test_other_content_types_are_refused(content_type: str) -> None:
    """Only multipart/form-data with a boundary is accepted."""
    with pytest.raises(BadRequest):
        Upload(content_type, ImageSink(LIMIT), LIMIT, lambda geometry: None)


@pytest.mark.parametrize("fill", [b"\0", b"A"])
def test_a_decompression_bomb_takes_little_memory(fill: bytes) -> None:
    """A megabyte that inflates to a gigabyte is refused, and takes less than 200 MiB at the peak."""
    bomb = gzip.compress(fill * (1 << 30), 1)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            receive(ImageSink(LIMIT), *form([("file", bomb), ("metadata", GOOD)]), size=1 << 16, limit=8 << 30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 << 20


def test_an_image_of_zeros_is_accepted() -> None:
    """It compresses as much as a decompression bomb, but its length fits its dimensions."""
    zeros = np.zeros((128, 512, 512), np.float32)
    sink = ImageSink(LIMIT)
    geometry = receive(sink, *form([("file", packed(zeros)), ("metadata", described(zeros.shape))]), size=1 << 16)
    assert sink.volume(geometry).data.shape == zeros.shape


def test_images_beyond_the_memory_limit_are_refused() -> None:
    """Metadata refuse an image before a byte is inflated; without metadata, the inflated bytes are counted."""
    with pytest.raises(TooLarge):
        receive(ImageSink(LIMIT), *form([("metadata", described((100, 100, 100))), ("file", b"")]), limit=1 << 20)
    inflater = Inflater(ImageSink(LIMIT), 1 << 16)
    with pytest.raises(TooLarge):
        inflater.feed(gzip.compress(np.random.default_rng(0).bytes(1 << 17)))


def test_several_components_are_refused_with_advice() -> None:
    """The engines take images with one component, and the message says what to do."""
    two = np.zeros((5, 7, 18), np.float32)
    sink = ImageSink(LIMIT)
    geometry = receive(sink, *form([("file", packed(two)), ("metadata", described((5, 7, 9), components_per_pixel=2))]))
    with pytest.raises(BadRequest, match="single component"):
        sink.volume(geometry)
