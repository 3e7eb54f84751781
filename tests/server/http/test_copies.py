"""How often an image is in memory, and how much of it a click reads: counted, not timed."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from isal import isal_zlib

from dls.server.engines.process import ProcessEngine
from dls.server.engines.region import RegionEngine
from dls.server.options import EngineOptions
from dls.server.shared_memory import SharedBlock
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap, described, packed

SHAPE = (128, 512, 512)
VOXELS = 128 * 512 * 512


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SharedBlock]]:
    """Collects the blocks of shared memory as they are created."""
    created: list[SharedBlock] = []
    init = SharedBlock.__init__

    def init_and_collect(self: SharedBlock, size: int) -> None:
        init(self, size)
        created.append(self)

    monkeypatch.setattr(SharedBlock, "__init__", init_and_collect)
    yield created


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sparse shared memory")
def test_an_image_is_in_memory_once(blocks: list[SharedBlock]) -> None:
    """The image is inflated to where the engine reads it, and only a few chunks are elsewhere in memory."""
    image = np.zeros(SHAPE, np.float32)
    image[:, ::2] = 7
    image[64, 200:300, 200:300] += np.random.default_rng(0).integers(0, 9, (100, 100))
    file, metadata = packed(image), described(SHAPE)
    engine = ProcessEngine("region", EngineOptions(), RegionEngine())
    with serving(engine) as server:
        snap = ItkSnap(server.port)
        snap.start()
        tracemalloc.start()
        try:
            assert snap.post(f"/upload_raw/{snap.session}", file, metadata).status == 200
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < VOXELS  # a quarter of the image
    volume, mask = blocks
    assert volume.memory.size() == 4 * VOXELS and mask.memory.size() == VOXELS


def test_a_click_reads_the_slices_that_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A click does not read the whole mask: after an upload, that alone would allocate each of the mask's pages."""
    compressed: list[int] = []
    compressobj = isal_zlib.compressobj

    class Counted:
        def __init__(self, *arguments: Any) -> None:
            self._stream = compressobj(*arguments)

        def compress(self, data: Any) -> bytes:
            compressed.append(len(data))
            return bytes(self._stream.compress(data))

        def flush(self, mode: int) -> bytes:
            return bytes(self._stream.flush(mode))

    monkeypatch.setattr(isal_zlib, "compressobj", Counted)
    image = np.zeros((64, 128, 128), np.float32)
    image[20:24, 40:60, 40:60] = 100
    with serving() as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(image)
        drawn = snap.mask(snap.point(22, 50, 50))
    assert drawn.any() and not drawn[:20].any() and not drawn[24:].any()
    assert 0 < sum(compressed) <= 8 * 128 * 128
