"""Uploads that cost more than they weigh: streams without content, drawings without end, memory that is not there."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import socket
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dls.errors import RequestError
from dls.server.volume import Geometry
from dls.server.wire.upload import MAX_DRAWN_VOXELS, DrawingSink
from tests.cli.test_serve import ServeProcess
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap, described
from tests.support.processes import until

IMAGE = np.random.default_rng(0).normal(100, 10, (30, 40, 50)).astype(np.float32)
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"
"""A stored deflate block of length zero that is not the last one (RFC 1951, section 3.2.4)."""
GZIP_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"


@contextlib.contextmanager
def half_upload(port: int, session: str, file: bytes) -> Iterator[socket.socket]:
    """Send a part of an upload's file, of which far more is announced."""
    head = f"POST /upload_raw/{session} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {1 << 30}\r\n"
    head += "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
    part = '--B\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        with contextlib.suppress(ConnectionError):  # it may be refused before all is sent
            client.sendall(head.encode() + part.encode() + file)
        yield client


def test_a_stream_that_inflates_to_nothing_is_refused(tmp_path: Path) -> None:
    """Row 18: an upload of empty deflate blocks is refused in its first MiBs, and leaves no file."""
    endless = GZIP_HEADER + EMPTY_BLOCK * ((8 << 20) // 5)
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        with half_upload(server.port, snap.session, endless) as client:
            assert client.recv(100).startswith(b"HTTP/1.1 400 ")
        until(lambda: not [*tmp_path.rglob("image-*")])
        assert snap.upload(IMAGE).status == 200


def test_an_honest_stream_of_the_worst_settings_is_taken() -> None:
    """Row 18: data that do not compress at all, stored or coded badly, are within the limit."""
    noise = np.frombuffer(np.random.default_rng(1).bytes(8 << 20), np.uint8).view("<f4").reshape(128, 128, 128)
    for level, memory, strategy in itertools.product((0, 1), (1, 9), (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED)):
        stream = zlib.compressobj(level, zlib.DEFLATED, 31, memory, strategy)
        file = stream.compress(noise.tobytes()) + stream.flush()
        with serving() as server:
            snap = ItkSnap(server.port)
            snap.start()
            assert snap.post(f"/upload_raw/{snap.session}", file, described(noise.shape)).status == 200


def test_a_drawing_of_too_many_voxels_is_refused() -> None:
    """Row 9: a scribble of all of a volume of 256^3 gets 413 while it arrives; the next prompt is answered."""
    volume = np.zeros((256, 256, 256), np.float32)
    volume[100:120, 100:120, 100:120] = 100
    with serving() as server:
        snap = ItkSnap(server.port)
        snap.start()
        assert snap.upload(volume).status == 200
        answer = snap.draw("scribble", np.ones(volume.shape, bool))
        assert answer.status == 413 and "drawn" in answer.error
        assert snap.mask(snap.point(110, 110, 110)).any()


def test_a_crop_takes_little_memory() -> None:
    """Row 9: the crop of the largest drawing takes a few bits for each voxel of its box, and no lists of indices."""
    side = 256
    drawn = np.zeros(side**3, np.float32)
    drawn[:: side**3 // MAX_DRAWN_VOXELS] = 1
    tracemalloc.start()
    try:
        sink = DrawingSink()
        for block in np.split(drawn, 64):
            sink.write(block.tobytes())
        crop = sink.crop(Geometry((side,) * 3))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert crop is not None and int(np.count_nonzero(crop[1])) == MAX_DRAWN_VOXELS
    assert peak < 2 * side**3


def test_what_a_drawing_costs_is_counted() -> None:
    """Row 9: bits, drawn voxels and the box count as the drawing arrives, and a refusal stops it."""
    taken: list[int] = []
    sink = DrawingSink(taken.append)
    sink.write(bytes(4 << 20))
    assert not taken  # where nothing is drawn, nothing is kept
    sink.write(np.ones(1000, np.float32).tobytes())
    sink.crop(Geometry((1, 1, (1 << 20) + 1000)))
    assert taken == [125 + 112 * 1000, 4 * 1000]

    def refuse(size: int) -> None:
        raise RequestError("No.")

    with pytest.raises(RequestError):
        DrawingSink(refuse).write(np.ones(8, np.float32).tobytes())


@pytest.fixture
def few_descriptors(tmp_path: Path) -> Iterator[ServeProcess]:
    """Run `dls serve` under `ulimit -n 256`, which it can't raise."""
    yield from limited("ulimit -n 256", tmp_path)


def limited(limit: str, folder: Path, *options: str) -> Iterator[ServeProcess]:
    """Run `dls serve` under a limit of the shell's."""
    arguments = ["serve", "-p", "0", "--session-dir", str(folder), *options]
    process = ServeProcess.__new__(ServeProcess)
    process.banner = ""
    process.process = subprocess.Popen(
        ["bash", "-c", f'{limit}; exec "$@"', "bash", sys.executable, "-m", "dls", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        yield process


def test_many_empty_sessions_with_few_descriptors(few_descriptors: ServeProcess) -> None:
    """Row 11: with 256 descriptors, 400 panels that were opened and forgotten stop nobody."""
    snap = ItkSnap(few_descriptors.port)
    for _ in range(400):
        snap.start()
    assert snap.get("/status").status == 200
    assert snap.upload(IMAGE).status == 200
    assert snap.mask(snap.point(15, 20, 25)).any()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit")
def test_an_address_space_that_is_limited(tmp_path: Path) -> None:
    """Row 10: under `ulimit -v`, images that fit are taken, and others are refused in a sentence: never a 500."""
    for serving_ in limited("ulimit -v 3000000", tmp_path):
        fitting = zeros_upload((64, 256, 256))
        snap = ItkSnap(serving_.port)
        stack = contextlib.ExitStack()
        for _ in range(6):
            snap.start()
            stack.enter_context(half_upload(serving_.port, snap.session, gzip.compress(IMAGE.tobytes())[:1000]))
        for _ in range(6):
            snap.start()
            snap.shape = (64, 256, 256)
            assert snap.post(f"/upload_raw/{snap.session}", *fitting).status == 200
            assert snap.point(1, 1, 1).status == 200
        stack.close()
        statuses = set()
        for depth in (2700, 2900, 4000):
            answer = snap.post(f"/upload_raw/{snap.session}", *zeros_upload((depth, 256, 256)))
            statuses.add(answer.status)
            assert answer.status == 200 or answer.error
        assert statuses <= {200, 413, 503} and 413 in statuses
        snap.start()
        assert snap.post(f"/upload_raw/{snap.session}", *fitting).status == 200


def zeros_upload(shape: tuple[int, int, int]) -> tuple[bytes, bytes]:
    return gzip.compress(bytes(4 * int(np.prod(shape))), 1), described(shape)
