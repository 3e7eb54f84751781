"""How often an image stands in memory, and how much of it a click touches. Counted, not timed."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dls.server.engines.process import ProcessEngine
from dls.server.engines.region import RegionEngine
from dls.server.options import EngineOptions
from dls.server.shared_memory import SharedBlock
from dls.server.wire import masks
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap, described, packed

SHAPE = (128, 512, 512)
VOXELS = 128 * 512 * 512


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SharedBlock]]:
    """The blocks of memory that the engine's process sees too, as they are made."""
    made: list[SharedBlock] = []
    init = SharedBlock.__init__

    def counted(self: SharedBlock, size: int) -> None:
        init(self, size)
        made.append(self)

    monkeypatch.setattr(SharedBlock, "__init__", counted)
    yield made


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an image is collected first")
def test_an_image_stands_in_memory_once(blocks: list[SharedBlock]) -> None:
    """What is inflated is written to where the engine reads it; on the way there is never more than a few pieces."""
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
    """Not the whole mask: on a first click after an upload that alone would take each of its pages from the system."""
    compressed: list[int] = []
    make = masks.isal_zlib.compressobj

    class Counted:
        def __init__(self, *arguments: Any) -> None:
            self._stream = make(*arguments)

        def compress(self, data: Any) -> bytes:
            compressed.append(len(data))
            return bytes(self._stream.compress(data))

        def flush(self, mode: int) -> bytes:
            return bytes(self._stream.flush(mode))

    monkeypatch.setattr(masks.isal_zlib, "compressobj", Counted)
    image = np.zeros((64, 128, 128), np.float32)
    image[20:24, 40:60, 40:60] = 100
    with serving() as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(image)
        drawn = snap.mask(snap.point(22, 50, 50))
    assert drawn.any() and not drawn[:20].any() and not drawn[24:].any()
    assert 0 < sum(compressed) <= 8 * 128 * 128
