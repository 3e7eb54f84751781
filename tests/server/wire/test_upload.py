"""Bytes to arrays and back."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from dls.errors import BadRequest, TooLarge
from dls.server.volume import Geometry
from dls.server.wire import upload
from dls.server.wire.upload import DrawingSink, ImageSink, Inflater, Upload
from tests.support.itksnap import described, form, packed

LIMIT = 1 << 30


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def take(sink: upload.Sink, data: bytes, content_type: str, size: int = 4096, limit: int = LIMIT) -> Geometry:
    upload = Upload(content_type, sink, limit, lambda geometry: None)
    for piece in pieces(data, size):
        upload.feed(piece)
    return upload.finish()


VOLUME = np.random.default_rng(0).normal(size=(5, 7, 9)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("order", ["file first", "metadata first"])
def test_an_image_comes_through_however_it_is_cut(size: int, order: str) -> None:
    """Whatever pieces the body arrives in, and whichever part comes first."""
    parts = [("file", packed(VOLUME)), ("metadata", described(VOLUME.shape))]
    sink = ImageSink(LIMIT)
    geometry = take(sink, *form(parts if order == "file first" else parts[::-1]), size=size)
    volume = sink.volume(geometry)
    assert volume.data.dtype == np.float32 and volume.data.flags.writeable
    np.testing.assert_array_equal(volume.data, VOLUME)


@pytest.mark.parametrize("size", [3, 1000, 1 << 20])
def test_a_drawing_comes_through_as_its_smallest_crop(size: int) -> None:
    """Origin and mask of what is drawn, on one slice, far apart, or everywhere."""
    for where in ([(2, 3, 4)], [(0, 0, 0), (4, 6, 8)], [(1, y, x) for y in range(7) for x in range(9)]):
        drawn = np.zeros((5, 7, 9), np.float32)
        for voxel in where:
            drawn[voxel] = 1
        sink = DrawingSink()
        geometry = take(sink, *form([("file", packed(drawn)), ("metadata", described(drawn.shape))]), size=size)
        found = sink.crop(geometry)
        assert found is not None
        origin, mask = found
        again = np.zeros(drawn.shape, bool)
        again[tuple(slice(o, o + n) for o, n in zip(origin, mask.shape, strict=True))] = mask
        np.testing.assert_array_equal(again, drawn != 0)
        assert mask.any(axis=(1, 2))[[0, -1]].all() and mask.any(axis=(0, 1))[[0, -1]].all()


def test_an_empty_drawing_has_no_crop() -> None:
    """Nothing drawn, nothing kept."""
    sink = DrawingSink()
    empty = np.zeros((5, 7, 9), np.float32)
    assert sink.crop(take(sink, *form([("file", packed(empty)), ("metadata", described(empty.shape))]))) is None


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
    """Not gzip, cut short, checksum wrong, too short, too long, more than one member."""
    with pytest.raises(error):
        take(ImageSink(LIMIT), *form([("file", file), ("metadata", GOOD)]), size=size)


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
def test_missing_and_doubled_parts_are_refused(parts: list[tuple[str, bytes]]) -> None:
    """With a sentence each."""
    with pytest.raises(BadRequest):
        take(ImageSink(LIMIT), *form(parts))


def test_a_body_cut_short_is_refused() -> None:
    """Wherever it is cut: even the end of the multipart body has to be there."""
    data, content_type = form([("file", packed(VOLUME)), ("metadata", GOOD)])
    for length in range(0, len(data) - 4, 37):
        with pytest.raises(BadRequest):
            take(ImageSink(LIMIT), data[:length], content_type)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=x"],
)
def test_other_content_types_are_refused(content_type: str) -> None:
    """Only multipart/form-data with a boundary."""
    with pytest.raises(BadRequest):
        Upload(content_type, ImageSink(LIMIT), LIMIT, lambda geometry: None)


@pytest.mark.parametrize("fill", [b"\0", b"A"])
def test_a_bomb_costs_no_memory(fill: bytes) -> None:
    """A megabyte that inflates to a gigabyte is refused, having cost less than 200 MiB at its peak."""
    bomb = gzip.compress(fill * (1 << 30), 1)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            take(ImageSink(LIMIT), *form([("file", bomb), ("metadata", GOOD)]), size=1 << 16, limit=8 << 30)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200 << 20


def test_an_image_of_zeros_is_no_bomb() -> None:
    """It shrinks as much as one, but its dimensions say what it is."""
    zeros = np.zeros((128, 512, 512), np.float32)
    sink = ImageSink(LIMIT)
    geometry = take(sink, *form([("file", packed(zeros)), ("metadata", described(zeros.shape))]), size=1 << 16)
    assert sink.volume(geometry).data.shape == zeros.shape


def test_what_passes_the_memory_limit_is_refused() -> None:
    """By the metadata before a byte is inflated, by the bytes before the metadata is there."""
    with pytest.raises(TooLarge):
        take(ImageSink(LIMIT), *form([("metadata", described((100, 100, 100))), ("file", b"")]), limit=1 << 20)
    inflater = Inflater(ImageSink(LIMIT), 1 << 16)
    with pytest.raises(TooLarge):
        inflater.feed(gzip.compress(np.random.default_rng(0).bytes(1 << 17)))


def test_several_components_are_refused_with_advice() -> None:
    """The engines take one."""
    two = np.zeros((5, 7, 18), np.float32)
    sink = ImageSink(LIMIT)
    geometry = take(sink, *form([("file", packed(two)), ("metadata", described((5, 7, 9), components_per_pixel=2))]))
    with pytest.raises(BadRequest, match="single component"):
        sink.volume(geometry)
