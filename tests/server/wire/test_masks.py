"""Masks to bytes, in pieces."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dls.server.volume import Box, Mask, extent
from dls.server.wire import masks
from tests.support.itksnap import unpacked


def said(mask: Mask, drawn: Box | None) -> Mask:
    """What the client decodes; the checksum at the end must be that of all voxels."""
    member = masks.encode_mask(mask, drawn)
    found = unpacked(json.loads(masks.answer(member))["result"], mask.shape)
    assert masks.checksum(member) == zlib.crc32(np.ascontiguousarray(found).data)
    return found


@given(st.tuples(*[st.integers(1, 40)] * 3), st.integers(0, 2**32), st.data())
def test_a_mask_is_one_gzip_member_in_base64(shape: tuple[int, int, int], seed: int, data: st.DataObject) -> None:
    """The client stops at the first end of stream; it gets the voxels that are in the box, and zeros around them."""
    start = data.draw(st.integers(0, shape[0] - 1))
    stop = data.draw(st.integers(start, shape[0]))
    mask = np.zeros(shape, np.uint8)
    mask[start:stop] = np.random.default_rng(seed).integers(0, 2, (stop - start, *shape[1:]))
    drawn = slice(start, stop), slice(0, shape[1]), slice(0, shape[2])
    np.testing.assert_array_equal(said(mask, drawn), mask)
    np.testing.assert_array_equal(said(mask, extent(mask)), mask)
    np.testing.assert_array_equal(said(mask[::-1], extent(mask[::-1])), mask[::-1])


def test_only_the_slices_in_the_box_are_read() -> None:
    """So the cost of a click is that of what it drew, not of the image: what lies outside could be anything."""
    mask = np.ones((20, 300, 400), np.uint8)
    found = said(mask, (slice(9, 11), slice(0, 300), slice(0, 400)))
    assert found[9:11].all() and not found[:9].any() and not found[11:].any()
    assert not said(mask, None).any()


@pytest.mark.parametrize("count", [0, 1, 255, masks.RUN - 1, masks.RUN, 3 * masks.RUN + 12345])
def test_zeros_and_their_checksums_are_ready_made(count: int) -> None:
    """As zlib would have them."""
    stream = zlib.decompressobj(-15)
    assert stream.decompress(masks.zeros(count) + masks.END) == bytes(count) and stream.eof
    assert len(masks.zeros(count)) < 30 + count / 900
    for crc in (0, 0x12345678, 0xFFFFFFFF):
        assert masks.checksum_with_zeros(count, crc) == zlib.crc32(bytes(count), crc)


def test_the_extent_of_a_mask() -> None:
    """Whole slices: that is what is compressed."""
    mask = np.zeros((5, 6, 7), np.uint8)
    assert extent(mask) is None
    mask[1, 2, 3] = mask[3, 0, 0] = 1
    assert extent(mask) == (slice(1, 4), slice(0, 6), slice(0, 7))
