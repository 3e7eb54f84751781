"""Masks are encoded as gzip members of joined pieces."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dls.server.volume import Box, Mask, extent
from dls.server.wire import masks
from tests.support.itksnap import unpacked


def decode(mask: Mask, occupied: Box | None) -> Mask:
    """Return what the client decodes, and check that the CRC in the trailer is that of all voxels."""
    member = masks.encode_mask(mask, occupied)
    decoded: Mask = unpacked(json.loads(masks.encode_answer(member))["result"], mask.shape)
    assert masks.read_crc(member) == zlib.crc32(np.ascontiguousarray(decoded).data)
    return decoded


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(0, 2**32), st.data())
def test_a_mask_is_one_gzip_member_in_base64(shape: tuple[int, int, int], seed: int, data: st.DataObject) -> None:
    """The client stops at the first end of stream, and decodes the voxels in the box and zeros around them."""
    start = data.draw(st.integers(0, shape[0] - 1))
    stop = data.draw(st.integers(start, shape[0]))
    mask = np.zeros(shape, np.uint8)
    mask[start:stop] = np.random.default_rng(seed).integers(0, 2, (stop - start, *shape[1:]))
    occupied = slice(start, stop), slice(0, shape[1]), slice(0, shape[2])
    np.testing.assert_array_equal(decode(mask, occupied), mask)
    np.testing.assert_array_equal(decode(mask, extent(mask)), mask)
    np.testing.assert_array_equal(decode(mask[::-1], extent(mask[::-1])), mask[::-1])


def test_only_the_slices_in_the_box_are_read() -> None:
    """Voxels outside the box are not read, so a click costs as much as what it changed, not as the whole image."""
    mask = np.ones((20, 300, 400), np.uint8)
    decoded = decode(mask, (slice(9, 11), slice(0, 300), slice(0, 400)))
    assert decoded[9:11].all() and not decoded[:9].any() and not decoded[11:].any()
    assert not decode(mask, None).any()


@pytest.mark.parametrize(
    "count", [0, 1, 255, masks.ZEROS_PER_PIECE - 1, masks.ZEROS_PER_PIECE, 3 * masks.ZEROS_PER_PIECE + 12345]
)
def test_prepared_zeros_and_their_crc_are_those_of_zlib(count: int) -> None:
    """The prepared pieces inflate to the zeros, are small, and their CRC is what zlib computes."""
    stream = zlib.decompressobj(-15)
    assert stream.decompress(masks.deflate_zeros(count) + masks.LAST_BLOCK) == bytes(count) and stream.eof
    assert len(masks.deflate_zeros(count)) < 30 + count / 900
    for crc in (0, 0x12345678, 0xFFFFFFFF):
        assert masks.extend_crc(count, crc) == zlib.crc32(bytes(count), crc)


def test_the_extent_of_a_mask() -> None:
    """The box of a mask spans whole slices, because whole slices are compressed."""
    mask = np.zeros((5, 6, 7), np.uint8)
    assert extent(mask) is None
    mask[1, 2, 3] = mask[3, 0, 0] = 1
    assert extent(mask) == (slice(1, 4), slice(0, 6), slice(0, 7))
