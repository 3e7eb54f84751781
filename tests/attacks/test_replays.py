"""Row 4, where a journal is whole and its replay gives another mask: the mask that was answered counts."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from dls.server.engines.process import ProcessEngine
from dls.server.options import EngineOptions
from tests.support import engines
from tests.support.engines import Painter, PainterThatMovesFew, PainterThatMovesMany
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.synthetic import ellipsoid

SHAPE = (16, 24, 24)
BODY = ellipsoid(SHAPE, (8, 12, 12), (5, 7, 7))
DOT = np.zeros(SHAPE, bool)
DOT[1, 1, 1:3] = True


def in_process(engine: type[Painter]) -> ProcessEngine:
    """The engine in a process of its own, as servers have it."""
    return ProcessEngine(f"{engines.__name__}:{engine.__name__}", EngineOptions(), engine())


def painted(folder: Path) -> ItkSnap:
    """A session with two prompts, whose server has ended."""
    with serving(Painter(), folder=folder) as server:
        snap = ItkSnap(server.port)
        snap.start("painter")
        assert snap.upload(np.zeros(SHAPE, np.float32)).status == 200
        for drawn, foreground in ((BODY, True), (BODY & (np.arange(24) > 16), False)):
            assert snap.draw("scribble", drawn, foreground).status == 200
    return snap


def test_the_mask_that_was_answered_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Row 4: a replay that moves three voxels does not change the mask, and the log says how many there were."""
    snap = painted(tmp_path)
    with serving(in_process(PainterThatMovesFew), folder=tmp_path) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        mask = snap.mask(snap.draw("scribble", DOT))
    np.testing.assert_array_equal(mask, BODY & (np.arange(24) <= 16) | DOT)
    assert "the mask differs in 3 voxels" in caplog.text


def test_a_replay_that_differs_much_is_refused(tmp_path: Path) -> None:
    """Row 4: below a Dice of 0.99 the prompt is refused in a sentence; a reset begins anew."""
    snap = painted(tmp_path)
    with serving(in_process(PainterThatMovesMany), folder=tmp_path) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        answer = snap.draw("scribble", DOT)
        assert answer.status == 409 and "300 voxels" in answer.error and "choose another image" in answer.error
        assert snap.get(f"/reset_interactions/{snap.session}").status == 200
        np.testing.assert_array_equal(snap.mask(snap.draw("scribble", DOT)), DOT)


@pytest.mark.parametrize("damage", ["gone", "truncated", "another", "no gzip"])
def test_a_damaged_mask_is_no_mask(tmp_path: Path, damage: str) -> None:
    """Row 4: where the replay differs and the stored mask is damaged, nothing tells which is right: refused."""
    snap = painted(tmp_path)
    [path] = tmp_path.rglob("mask-*.gz")
    damaged = {
        "truncated": path.read_bytes()[:-30],
        "another": gzip.compress(BODY.astype(np.uint8).tobytes()),
        "no gzip": b"zeros",
    }
    path.unlink()
    if damage in damaged:
        path.write_bytes(damaged[damage])
    with serving(PainterThatMovesFew(), folder=tmp_path) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        answer = snap.draw("scribble", DOT)
        assert answer.status == 409 and "damaged" in answer.error
    with serving(Painter(), folder=tmp_path) as server:  # a replay that is exact needs no stored mask
        snap.url = f"http://127.0.0.1:{server.port}"
        np.testing.assert_array_equal(snap.mask(snap.draw("scribble", DOT)), BODY & (np.arange(24) <= 16) | DOT)
