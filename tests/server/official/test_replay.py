"""A lease outlives the engine, the server and the want of memory: afterwards everything is voxel for voxel the same.

The reference is the library, called directly with the same random numbers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dls.server.engines.catalog import make_engine
from dls.server.engines.nninteractive import NnInteractiveEngine
from dls.server.engines.process import ProcessEngine
from dls.server.options import EngineOptions
from dls.weights import ModelSpec
from tests.server.official.lease import Lease
from tests.support.connect_process import engines_of
from tests.support.http_server import serving
from tests.support.nninteractive import IGNORED_WARNINGS, MODEL
from tests.support.synthetic import ellipsoid, noisy

pytestmark = IGNORED_WARNINGS

OPTIONS = EngineOptions("cpu", ModelSpec(str(MODEL), network=False))
INCLUDE = {"include_interaction": True}


@pytest.fixture(scope="module")
def library() -> Iterator[NnInteractiveEngine]:
    engine = NnInteractiveEngine(OPTIONS)
    engine.load(lambda progress: None)
    yield engine
    engine.close()


class Both:
    """A lease and the library called directly: both do the same, and their buffers are compared after each step."""

    def __init__(
        self, lease: Lease, session: Any, image: np.ndarray, truth: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.lease, self._session, self._image, self._truth, self._rng = lease, session, image, truth, rng

    def set_image(self) -> None:
        executor = self._session.executor
        self._session._finish_preprocessing_and_initialize_interactions()
        self._session.set_image(self._image[None])
        assert executor is self._session.executor
        assert self.lease.set_image(self._image).status == 200
        self.set_buffer()

    def set_buffer(self) -> None:
        self._session.set_target_buffer(np.zeros(self._image.shape, np.uint8))
        assert self.lease.set_buffer(self._image.shape).status == 200

    def step(self) -> str:
        """Do something at random."""
        steps: list[tuple[Callable[[], None], float]] = [
            (self.point, 6), (self.scribble, 4), (self.lasso, 3), (self.box, 3), (self.undo, 4), (self.predict, 2),
            (self.autozoom, 1), (self.seed, 2), (self.reset, 1), (self.set_buffer, 0.5), (self.set_image, 0.7),
        ]  # fmt: skip
        weights = np.array([weight for _, weight in steps])
        chosen = steps[self._rng.choice(len(steps), p=weights / weights.sum())][0]
        np.random.seed(0)
        chosen()
        self.compare()
        return chosen.__name__

    def compare(self) -> None:
        assert self.lease.copy is not None
        np.testing.assert_array_equal(self.lease.copy, self._session.target_buffer)

    def _common(self) -> dict[str, Any]:
        return {"include_interaction": bool(self._rng.random() < 0.8), "run_prediction": bool(self._rng.random() < 0.7)}

    def _place(self) -> list[int]:
        inside = np.argwhere(self._truth)
        return [int(at) for at in inside[self._rng.integers(len(inside))]]

    def point(self) -> None:
        at, common = self._place(), self._common()
        self._session.add_point_interaction(at, **common)
        assert self.lease.post("/add_point_interaction", {"coordinates": at, **common}).status == 200

    def scribble(self) -> None:
        z, y, x = self._place()
        mask = np.zeros(self._image.shape, np.uint8)
        mask[z, y, max(0, x - 6) : x + 6] = 1
        common = self._common()
        self._session.add_scribble_interaction(mask, **common)
        assert self.lease.send("/add_scribble_interaction", mask, common).status == 200

    def lasso(self) -> None:
        z = self._place()[0]
        common = self._common() | {"interaction_bbox": [[z, z + 1], *([0, side] for side in self._image.shape[1:])]}
        mask = self._truth[z : z + 1].astype(np.uint8)
        self._session.add_lasso_interaction(mask, **common)
        assert self.lease.send("/add_lasso_interaction", mask, common).status == 200

    def box(self) -> None:
        z, y, x = self._place()
        common, box = self._common(), [[z, z + 1], [y - 20, y + 20], [x - 15, x + 25]]
        self._session.add_bbox_interaction(box, **common)
        assert self.lease.post("/add_bbox_interaction", {"bbox_coords": box, **common}).status == 200

    def undo(self) -> None:
        done = self._session.undo()
        assert self.lease.post("/undo", {}).meta["ran_prediction"] is done

    def predict(self) -> None:
        force = bool(self._rng.random() < 0.5)
        done = self._session._predict(force_full_refine=force) is not None
        assert self.lease.post("/predict", {"force_full_refine": force}).meta["ran_prediction"] is done

    def autozoom(self) -> None:
        zoom = bool(self._rng.random() < 0.5)
        self._session.set_do_autozoom(zoom)
        assert self.lease.post("/set_do_autozoom", {"do_autozoom": zoom}).status == 200

    def seed(self) -> None:
        mask = np.roll(self._truth, int(self._rng.integers(-4, 5)), axis=2).astype(np.uint8)
        run = bool(self._rng.random() < 0.5)
        self._session.add_initial_seg_interaction(mask, run_prediction=run)
        assert self.lease.seed(mask, run).status == 200

    def reset(self) -> None:
        self._session.reset_interactions()
        assert self.lease.reset().status == 200


def make_process() -> ProcessEngine:
    return ProcessEngine("nninteractive", OPTIONS, make_engine("nninteractive", OPTIONS))


def harm(kind: str, both: Both, stack: ExitStack, folder: Path, budget: int) -> None:
    """Kill the engine, or replace the server, or let another lease need the memory."""
    if kind == "kill":
        [engine] = engines_of(os.getpid())
        os.kill(engine, signal.SIGKILL)
    elif kind == "server":
        stack.close()
        both.lease.port = stack.enter_context(
            serving(make_process(), folder=folder, budget=budget, answer_seconds=900)
        ).port
    else:
        assert Lease(both.lease.port).set_image(np.ones(both.lease.copy.shape, np.uint8)).status == 200  # type: ignore[union-attr]


def run(
    library: NnInteractiveEngine, seed: int, image: np.ndarray, truth: np.ndarray, folder: Path, steps: int
) -> None:
    rng, budget = np.random.default_rng(seed), int(1.5 * library.session_bytes(image.size))
    times = rng.choice(np.arange(2, steps), 3, replace=False)
    harms = dict(zip(times, rng.permutation(["kill", "server", "sleep"]), strict=True))
    with ExitStack() as stack:
        port = stack.enter_context(serving(make_process(), folder=folder, budget=budget, answer_seconds=900)).port
        both = Both(Lease(port), library._new_loaded_session(), image, truth, rng)
        both.set_image()
        done = []
        for step in range(steps):
            if step in harms:
                done.append(str(harms[step]))
                harm(str(harms[step]), both, stack, folder, budget)
            done.append(both.step())
        print(f"seed {seed}: {' '.join(done)}")
        both._session.executor.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(4))
def test_random_sequences(library: NnInteractiveEngine, tmp_path: Path, seed: int) -> None:
    """20 steps at random, with the engine killed, the server replaced and the session put to sleep between them."""
    shape = (40, 50, 60)
    truth = ellipsoid(shape, (20, 25, 30), (8, 9, 10))
    run(library, seed, noisy(truth, 6, np.random.default_rng(seed)), truth, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_random_sequence_on_a_large_object(library: NnInteractiveEngine, tmp_path: Path) -> None:
    """The same with an object larger than a patch, for which the library draws random numbers."""
    shape = (120, 120, 120)
    truth = ellipsoid(shape, (60, 60, 60), (40, 40, 40))
    run(library, 11, noisy(truth, 6, np.random.default_rng(0)), truth, tmp_path, 12)


def test_a_session_that_slept(library: NnInteractiveEngine, tmp_path: Path) -> None:
    """A lease that another one has put to sleep goes on as the library does without a pause."""
    shape = (40, 50, 60)
    truth = ellipsoid(shape, (20, 25, 30), (8, 9, 10))
    image, rng = noisy(truth, 6, np.random.default_rng(0)), np.random.default_rng(0)
    engine = make_engine("nninteractive", OPTIONS)
    with serving(engine, folder=tmp_path, budget=int(1.5 * library.session_bytes(image.size))) as server:
        both = Both(Lease(server.port), library._new_loaded_session(), image, truth, rng)
        both.set_image()
        for step in (both.point, both.scribble, both.undo):
            np.random.seed(0)
            step()
        other = Lease(server.port)
        assert other.set_image(image).status == 200
        for step in (both.lasso, both.undo):
            np.random.seed(0)
            step()
            both.compare()
