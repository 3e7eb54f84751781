"""Row 4 with nnInteractive: replays of large objects, for which the library samples patches at random."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from dls.server.engines.catalog import make_engine
from dls.server.engines.nninteractive import NnInteractiveEngine
from dls.server.engines.process import ProcessEngine
from dls.server.options import EngineOptions
from dls.server.volume import Geometry, Prompt, Volume
from dls.weights import ModelSpec
from tests.support.connect_process import engines_of
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.nninteractive import IGNORED_WARNINGS, MODEL
from tests.support.synthetic import ellipsoid, noisy

pytestmark = IGNORED_WARNINGS

OPTIONS = EngineOptions("cpu", ModelSpec(str(MODEL), network=False))
SHAPE = (150, 150, 150)
BALL = ellipsoid(SHAPE, (75, 75, 75), (45, 45, 45))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_large_object_is_replayed_voxel_for_voxel(tmp_path: Path) -> None:
    """Row 4: after the engine was killed, a point on a large object gives the mask of an unharmed session."""
    image = noisy(BALL, 6, np.random.default_rng(0))
    lasso = BALL & (np.arange(150) == 75)[:, None, None]
    engine = ProcessEngine("nninteractive", OPTIONS, make_engine("nninteractive", OPTIONS))
    with serving(engine, folder=tmp_path) as server:
        unharmed, killed = ItkSnap(server.port), ItkSnap(server.port)
        for snap in (unharmed, killed):
            snap.start("nnInteractive")
            assert snap.upload(image).status == 200
            snap.mask(snap.point(75, 75, 75))
            snap.mask(snap.draw("lasso", lasso))
        expected = unharmed.mask(unharmed.point(75, 75, 40))
        assert np.ptp(np.argwhere(expected), axis=0).max() > 64, "the object is not larger than a patch"
        [engine_process] = engines_of(os.getpid())
        os.kill(engine_process, signal.SIGKILL)
        np.testing.assert_array_equal(killed.mask(killed.point(75, 75, 40)), expected)


def test_a_restored_mask_is_what_the_next_prompt_refines() -> None:
    """Row 4: after single voxels were put back, the next prompt gives what it gives in a session without a replay."""
    engine = NnInteractiveEngine(OPTIONS)
    engine.load(lambda progress: None)
    shape = (48, 64, 64)
    image = noisy(ellipsoid(shape, (24, 32, 32), (10, 12, 12)), 6, np.random.default_rng(0))
    unharmed, replayed = (engine.open(Volume(image.copy(), Geometry(shape))) for _ in range(2))
    for work in (unharmed, replayed):
        work.add(Prompt.point(24, 32, 32, foreground=True))
    answered = unharmed.mask.copy()
    assert answered.any()
    replayed.restore(np.zeros(shape, np.uint8))
    assert not replayed.mask.any()
    replayed.restore(answered)
    for work in (unharmed, replayed):
        work.add(Prompt.point(24, 32, 40, foreground=False))
    np.testing.assert_array_equal(replayed.mask, unharmed.mask)
    engine.close()
