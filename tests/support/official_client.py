"""Plays napari, 3D Slicer and MITK: the client of nnInteractive's own protocol, and the library called directly.

Importing this module skips the tests of a module where torch or nninteractive is not installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dls.server.engines.nninteractive import NnInteractiveEngine
from dls.server.engines.seeding import seed_prediction
from dls.server.options import EngineOptions
from dls.weights import ModelSpec
from tests.support.nninteractive import MODEL
from tests.support.synthetic import ellipsoid, noisy

OPTIONS = EngineOptions("cpu", ModelSpec(str(MODEL), network=False))
"""Options of the engine with the tiny model."""
SHAPE = (48, 64, 64)
CENTER = (24, 32, 32)
TRUTH = ellipsoid(SHAPE, CENTER, (10, 12, 12))
IMAGE = noisy(TRUTH, 6, np.random.default_rng(0))
WIDE_SHAPE = (48, 64, 192)
LEFT, RIGHT = (24, 32, 32), (24, 32, 150)
"""Points on two objects of WIDE that are farther apart than a prediction reaches: each changes a box of its own."""
WIDE = noisy(
    ellipsoid(WIDE_SHAPE, LEFT, (10, 12, 12)) | ellipsoid(WIDE_SHAPE, RIGHT, (10, 12, 12)), 6, np.random.default_rng(0)
)
Session = Any
"""A session of the library's client, or of the library itself: they have the same methods."""
Step = Callable[[Session], object]


def open_client(
    port: int, image: np.ndarray = IMAGE, dtype: type = np.uint8, *, key: str | None = None, **options: Any
) -> Session:
    """Begin a session through the port, with an image and an empty buffer for its mask; `key` is the API key."""
    from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

    client = nnInteractiveRemoteInferenceSession(f"http://127.0.0.1:{port}", key, **options)
    try:
        begin(client, image, dtype)
    except BaseException:
        client.close()
        raise
    return client


def begin(session: Session, image: np.ndarray = IMAGE, dtype: type = np.uint8) -> None:
    """Give the session an image and an empty buffer for its mask."""
    session.set_image(image[None])
    session.set_target_buffer(np.zeros(image.shape, dtype))


@contextlib.contextmanager
def library(image: np.ndarray = IMAGE, dtype: type = np.uint8) -> Iterator[Session]:
    """Open a session of the library itself on the same model, in this process."""
    engine = NnInteractiveEngine(OPTIONS)
    engine.load(lambda progress: None)
    session = engine._new_session()
    try:
        session.initialize_from_loaded_artifacts(engine._artifacts)
        begin(session, image, dtype)
        yield session
    finally:
        session._reset_session()
        session.executor.shutdown(wait=False)
        engine.close()


def drawn(kind: str) -> np.ndarray:
    """Return a mask of the image's shape: a scribble through the object, a lasso around it, or half of the object."""
    mask = np.zeros(SHAPE, np.uint8)
    z, y, x = CENTER
    if kind == "scribble":
        mask[z, y, x - 6 : x + 6] = 1
    elif kind == "lasso":
        mask[z] = TRUTH[z]
    else:
        mask[:z] = TRUTH[:z]
    return mask


def point(where: tuple[int, int, int] = CENTER, inside: bool = True, run: bool = True) -> Step:
    """Return the step that adds a point."""
    return lambda session: session.add_point_interaction(list(where), inside, run_prediction=run)


def cropped_scribble(session: Session) -> object:
    """Add a scribble of which only the box around it is sent."""
    z, y, x = CENTER
    box = [[z + 2, z + 3], [y, y + 1], [x - 4, x + 4]]
    return session.add_scribble_interaction(np.ones((1, 1, 8), np.uint8), True, interaction_bbox=box)


STEPS: dict[str, Step] = {
    "point": point(),
    "point outside": point((4, 4, 4), inside=False),
    "undo": lambda session: session.undo(),
    "scribble": lambda session: session.add_scribble_interaction(drawn("scribble"), True),
    "scribble in a box": cropped_scribble,
    "lasso": lambda session: session.add_lasso_interaction(drawn("lasso"), True),
    "flat box": lambda session: session.add_bbox_interaction([[24, 25], [20, 44], [20, 44]], True),
    "point for later": point((24, 36, 36), run=False),
    "predict": lambda session: session._predict(),
    "predict with nothing to do": lambda session: session._predict(),
    "autozoom off": lambda session: session.set_do_autozoom(False),
    "reset": lambda session: session.reset_interactions(),
    "initial segmentation": lambda session: session.add_initial_seg_interaction(drawn("half")),
    "initial segmentation with a prediction": lambda session: session.add_initial_seg_interaction(
        drawn("half"), run_prediction=True
    ),
    "autozoom on": lambda session: session.set_do_autozoom(True),
    "last point": point((24, 26, 32)),
    "new buffer": lambda session: session.set_target_buffer(np.zeros(SHAPE, np.uint16)),
    "point in the new buffer": point(),
    "image and buffer again": begin,
    "point in the same image": point(),
}
"""Every method that changes something, in an order in which each of them has something to do."""


def play(session: Session, names: list[str] | None = None) -> list[np.ndarray]:
    """Take the steps of these names, by default all, and return the mask after each of them."""
    masks = []
    for name in names or STEPS:
        seed_prediction()  # for the library itself: a server does that on its own
        STEPS[name](session)
        masks.append(np.array(session.target_buffer))
    return masks


def assert_same(ours: list[np.ndarray], theirs: list[np.ndarray], names: list[str] | None = None) -> None:
    """Compare the masks of two sessions step by step."""
    for name, mask, expected in zip(names or STEPS, ours, theirs, strict=True):
        np.testing.assert_array_equal(mask, expected, err_msg=f"after {name}")
        assert mask.dtype == expected.dtype
