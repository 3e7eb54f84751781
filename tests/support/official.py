"""The client of nnInteractive's own protocol, and the library called directly, which says what its masks must be.

napari-nninteractive, SlicerNNInteractive and MITK speak that protocol; the first two by this very client. Importing
this module skips the tests of a module where torch or nninteractive is not installed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from nnInteractive.inference.inference_session import nnInteractiveInferenceSession
from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

from tests.support.nninteractive import MODEL

Operation = Callable[[Any], Any]
"""One call of a session's method: the client and the library have the same methods."""
Box = Sequence[Sequence[float]]


def connect_official(port: int, **options: Any) -> Any:
    """Claim a session through a local port with the official client: its heartbeats run, its time-outs are its own."""
    return nnInteractiveRemoteInferenceSession(f"http://127.0.0.1:{port}", **options)


def set_image(image: np.ndarray) -> Operation:
    """Return the call that sends an image of shape (z, y, x)."""
    return lambda session: session.set_image(image[None], {"spacing": [1.0, 1.0, 1.0]})


def set_buffer(shape: tuple[int, ...], dtype: Any = np.uint8) -> Operation:
    """Return the call that gives a new, empty target buffer."""
    return lambda session: session.set_target_buffer(np.zeros(shape, dtype))


def begin(image: np.ndarray, dtype: Any = np.uint8) -> tuple[Operation, Operation]:
    """Return the two calls with which the viewers begin to segment an image."""
    return set_image(image), set_buffer(image.shape, dtype)


def point(*at: float, include: bool = True, run: bool = True) -> Operation:
    """Return the call that adds a point at (z, y, x)."""
    return lambda session: session.add_point_interaction(list(at), include, run_prediction=run)


def bbox(box: Box, *, include: bool = True, run: bool = True) -> Operation:
    """Return the call that adds a box; one side of size 1 makes it two-dimensional."""
    return lambda session: session.add_bbox_interaction([list(side) for side in box], include, run_prediction=run)


def scribble(drawn: np.ndarray, box: Box | None = None, *, include: bool = True, run: bool = True) -> Operation:
    """Return the call that adds a scribble of the image's shape, or of the box's."""
    return lambda session: session.add_scribble_interaction(drawn, include, run_prediction=run, interaction_bbox=box)


def lasso(drawn: np.ndarray, box: Box | None = None, *, include: bool = True, run: bool = True) -> Operation:
    """Return the call that adds a filled lasso of the image's shape, or of the box's."""
    return lambda session: session.add_lasso_interaction(drawn, include, run_prediction=run, interaction_bbox=box)


def initial_seg(mask: np.ndarray, *, run: bool = False) -> Operation:
    """Return the call that begins with a mask of the image's shape."""
    return lambda session: session.add_initial_seg_interaction(mask, run_prediction=run)


def undo(session: Any) -> None:
    """Take the last prompt back."""
    session.undo()


def reset(session: Any) -> None:
    """Remove all prompts."""
    session.reset_interactions()


def predict(session: Any) -> None:
    """Predict what was added without a prediction."""
    session._predict()


def autozoom(on: bool) -> Operation:
    """Return the call that lets predictions zoom out, or not."""
    return lambda session: session.set_do_autozoom(on)


@functools.cache
def _artifacts() -> Any:
    loader = new_library_session()
    return loader._load_model_artifacts_from_disk(str(MODEL))


def new_library_session() -> Any:
    """Return a session of the library, made as its own server makes those of its clients."""
    return nnInteractiveInferenceSession(
        device=torch.device("cpu"), torch_n_threads=os.cpu_count() or 1, do_autozoom=True, enable_undo=True
    )


class Direct:
    """The library called directly, in this process: its masks are what every client must have."""

    def __init__(self, operations: Sequence[Operation] = ()) -> None:
        with _quiet():
            self._session = new_library_session()
            self._session.initialize_from_loaded_artifacts(_artifacts())
        for operation in operations:
            self.apply(operation)

    def apply(self, operation: Operation) -> np.ndarray | None:
        """Call a method with the random numbers that the server's predictions have; returns a copy of the mask."""
        np.random.seed(0)
        with _quiet():
            operation(self._session)
            # Two calls of `set_image` without a prompt between them can deadlock the library's two threads.
            self._session._finish_preprocessing_and_initialize_interactions()
        buffer = self._session.target_buffer
        return None if buffer is None else np.array(buffer)


def _quiet() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which the library's lines on standard output go nowhere."""
    return contextlib.redirect_stdout(io.StringIO())


class Oracle:
    """The mask after any history of calls; the longest one computed so far is continued."""

    def __init__(self) -> None:
        self._masks: dict[tuple[Operation, ...], np.ndarray | None] = {}
        self._direct = Direct()
        self._history: tuple[Operation, ...] = ()

    def mask(self, history: tuple[Operation, ...]) -> np.ndarray | None:
        """Return the mask after these calls; None while there is no target buffer."""
        if history not in self._masks:
            if history[: len(self._history)] != self._history:
                self._direct, self._history = Direct(), ()
            for operation in history[len(self._history) :]:
                mask = self._direct.apply(operation)
                self._history = (*self._history, operation)
                self._masks[self._history] = mask
        return self._masks[history]
