"""Names of images by what they contain: pure functions on bytes."""

from __future__ import annotations

import hashlib
import struct

import pytest

from dls.images import name_image


def chunk(blocks: list[bytes], order: list[int], flags: int = 0b101) -> bytes:
    """Return a chunk of c-blosc2 whose blocks lie in this order."""
    starts, at = [0] * len(blocks), 32 + 4 * len(blocks)
    for index in order:
        starts[index] = at
        at += len(blocks[index])
    header = struct.pack("<BBBBIII16x", 5, 1, flags, 4, 100 * len(blocks), 100, at)
    return header + struct.pack(f"<{len(blocks)}i", *starts) + b"".join(blocks[index] for index in order)


def frame(*chunks: bytes) -> bytes:
    """Return an array as the client of nnInteractive sends it."""
    head = struct.pack("<4sBBBB7s", b"NNIA", 1, 1, 1, 7, b"float32") + struct.pack("<q", 25)
    return (
        head + struct.pack("<I", len(chunks)) + b"".join(struct.pack("<QQ", 300, len(each)) + each for each in chunks)
    )


def name(data: bytes) -> str:
    return name_image(memoryview(data))


BLOCKS = [b"first", b"the second", b"3rd"]


def test_the_order_of_the_blocks_does_not_matter() -> None:
    """Threads write them as they are ready; what belongs where is what counts."""
    frames = [frame(chunk(BLOCKS, order), chunk(BLOCKS[:2], order[:2])) for order in ([0, 1, 2], [1, 0, 2])]
    assert frames[0] != frames[1] and name(frames[0]) == name(frames[1])
    assert name(frame(chunk(BLOCKS, [2, 0, 1]))) == name(frame(chunk(BLOCKS, [0, 1, 2])))


def test_another_image_has_another_name() -> None:
    """Other blocks, the same ones in other places, other borders between them, or another head."""
    base = frame(chunk(BLOCKS, [0, 1, 2]))
    others = [
        frame(chunk([BLOCKS[1], BLOCKS[0], BLOCKS[2]], [0, 1, 2])),
        frame(chunk([b"firs", b"tthe second", b"3rd"], [0, 1, 2])),
        frame(chunk([b"first", b"the second", b"3rD"], [0, 1, 2])),
        base.replace(b"float32", b"float31"),
        base + b"x",
    ]
    assert len({name(each) for each in [base, *others]}) == 6


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f\x8b\x08",
        b"NNIA",
        frame(chunk(BLOCKS, [0, 1, 2]))[:60],
        frame(chunk(BLOCKS, [0, 1, 2]))[:-1],
        frame(b"\x05\x01\x05\x04" + struct.pack("<III", 1 << 30, 1, 5) + bytes(40)),
    ],
)
def test_anything_else_is_named_by_its_bytes(data: bytes) -> None:
    """A gzip member, or an array that is cut or odd."""
    assert name(data) == f"{hashlib.sha256(data).hexdigest()}-{len(data)}"


@pytest.mark.parametrize("flags", [0b111, 0b001])
def test_chunks_that_have_no_table_of_blocks(flags: int) -> None:
    """They are taken as they are."""
    plain = frame(chunk(BLOCKS, [0, 1, 2], flags))
    assert name(plain) != name(frame(chunk(BLOCKS, [1, 0, 2], flags)))
    assert name(plain) == name(bytes(plain))


def test_the_clients_own_frames() -> None:
    """What the client sends twice differs in its bytes, and has one name."""
    pytest.importorskip("nnInteractive", reason="nninteractive is not installed: scripts/test installs it")
    np = pytest.importorskip("numpy")
    from nnInteractive.inference.remote.serialization import pack_array

    image = np.random.default_rng(0).normal(size=(1, 64, 128, 160)).astype(np.float32)
    names = {name(pack_array(image, nthreads=threads)) for threads in (1, 4, 4, 4)}
    assert len(names) == 1
    image[0, 0, 0, 0] += 1
    assert name(pack_array(image)) not in names
