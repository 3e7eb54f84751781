"""The official client itself, over a real socket, against a server in a process of its own that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dls.server.engines.nninteractive import NnInteractiveEngine
from dls.server.options import EngineOptions
from dls.weights import ModelSpec
from tests.support.connect_process import engines_of
from tests.support.nninteractive import IGNORED_WARNINGS, MODEL
from tests.support.processes import free_port, is_gone, until, wait_until_listening
from tests.support.synthetic import ellipsoid, noisy

pytestmark = [*IGNORED_WARNINGS, pytest.mark.slow, pytest.mark.timeout(900)]

SHAPE = (40, 50, 60)
TRUTH = ellipsoid(SHAPE, (20, 25, 30), (8, 9, 10))
IMAGE = noisy(TRUTH, 6, np.random.default_rng(0))


class Server:
    """`dls serve` on one port and one folder, however often it is started."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.command = [sys.executable, "-m", "dls", "serve", "--port", str(self.port), "--engine", "nninteractive"]
        self.command += ["--model", str(MODEL), "--device", "cpu", "--no-network", "--session-dir", str(folder)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        wait_until_listening(self.port, self.process)

    @property
    def engine(self) -> int:
        assert self.process is not None
        return engines_of(self.process.pid)[0]

    def kill(self) -> None:
        assert self.process is not None
        engine = self.engine
        self.process.kill()
        self.process.wait()
        until(lambda: is_gone(engine), 60)

    def kill_engine(self) -> None:
        os.kill(self.engine, signal.SIGKILL)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    yield made
    assert made.process is not None
    made.process.send_signal(signal.SIGTERM)
    made.process.wait(60)


def prompts() -> list[Callable[[Any], object]]:
    """Return what is asked of the client and of the library alike: their methods have the same names."""
    stroke = np.zeros(SHAPE, np.uint8)
    stroke[20, 20:30, 30] = 1
    lasso = TRUTH[20:21].astype(np.uint8)
    box = [[20, 21], [0, 50], [0, 60]]
    return [
        lambda session: session.add_point_interaction([20, 25, 30], True),
        lambda session: session.add_lasso_interaction(lasso, True, interaction_bbox=box),
        lambda session: session.add_scribble_interaction(stroke, False),
        lambda session: session.undo(),
        lambda session: session.add_bbox_interaction([[20, 21], [15, 35], [20, 40]], True, run_prediction=False),
        lambda session: session._predict(force_full_refine=True),
        lambda session: session.add_initial_seg_interaction(TRUTH.astype(np.uint8)),
        lambda session: session.add_point_interaction([20, 25, 44], True),
        lambda session: session.reset_interactions(),
        lambda session: session.add_point_interaction([18, 25, 30], True),
    ]


def test_the_client_goes_on_after_each_kind_of_death(server: Server) -> None:
    """The client of napari and 3D Slicer notices neither the death of the engine nor a new server: voxel for voxel."""
    from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

    engine = NnInteractiveEngine(EngineOptions("cpu", ModelSpec(str(MODEL), network=False)))
    engine.load(lambda progress: None)
    library = engine._new_loaded_session()
    client = nnInteractiveRemoteInferenceSession(f"http://127.0.0.1:{server.port}")
    assert client.ping() and client.heartbeat() > 600 and client.supports_undo
    for session in (library, client):
        session.set_image(IMAGE[None], {"spacing": np.ones(3)})
        session.set_target_buffer(np.zeros(SHAPE, np.uint8))
    for number, prompt in enumerate(prompts()):
        if number in (2, 5):
            server.kill_engine()
        if number in (3, 8):
            server.kill()
            server.start()
        for session in (library, client):
            np.random.seed(0)
            prompt(session)
        np.testing.assert_array_equal(client.target_buffer, library.target_buffer)
    client.close()
    library.executor.shutdown()
