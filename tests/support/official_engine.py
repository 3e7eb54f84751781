"""An engine without a network that serves official clients, and waits or fails where a test says so."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from dls.errors import BadRequest, EngineLost
from dls.server.operations import (
    ADD_INITIAL_SEG,
    ADD_LASSO,
    ADD_POINT,
    ADD_SCRIBBLE,
    PROMPTS,
    RESET,
    SET_DO_AUTOZOOM,
    SET_TARGET_BUFFER,
    UNDO,
    Bounds,
    Buffer,
    Carried,
    Operation,
    Outcome,
    to_bounds,
    to_shape,
)
from dls.server.options import EngineOptions
from tests.support.engines import Painter
from tests.support.nninteractive import MODEL  # noqa: F401 - skips the tests of a module without the library

RADIUS = 2


class OfficialPainter(Painter):
    """Paints a cube at each point and what is drawn; counts what it does, and waits or fails where a test says so."""

    def __init__(self, options: EngineOptions | None = None) -> None:
        super().__init__(options)
        self.official = PaintingOfficial(self)
        self.done: list[str] = []
        """Names of the operations that were carried out, those of replays included."""
        self.is_at_work, self.go_on = threading.Event(), threading.Event()
        """Set when an operation begins; it goes on when the other one is set."""
        self.go_on.set()
        self.is_loading, self.load_on = threading.Event(), threading.Event()
        self.load_on.set()
        self.failure: BaseException | None = None
        """What every operation raises."""
        self.load_failure: BaseException | None = None
        self.losses = 0
        """Number of operations from now on at which the engine is lost."""
        self.moved_voxels = 0
        """Number of voxels that the next drawing sets to 0, as the rounding of a GPU moves some in a replay."""

    def load(self, report: Any) -> None:
        self.is_loading.set()
        assert self.load_on.wait(60)
        if self.load_failure is not None:
            raise self.load_failure


class PaintingOfficial:
    def __init__(self, engine: OfficialPainter) -> None:
        self._engine = engine
        self.capabilities: dict[str, Any] = {"do_autozoom": True}

    def open(self, image: Path | None, carried: Carried, buffer: np.ndarray | None = None) -> PaintingSession:
        return PaintingSession(self._engine, image, carried, buffer)


class PaintingSession:
    def __init__(self, engine: Any, image: Path | None, carried: Carried, buffer: np.ndarray | None) -> None:
        from nnInteractive.inference.remote.serialization import unpack_array

        self._engine = engine
        try:
            self.image = None if image is None else unpack_array(image.read_bytes())
        except ValueError as error:
            raise BadRequest(str(error)) from error
        self._carried = carried
        self._undo: np.ndarray | None = None
        self.buffer: np.ndarray | None = None
        if carried.buffer is not None:
            self.buffer = np.zeros(carried.buffer.shape, carried.buffer.dtype) if buffer is None else buffer
        engine.is_open += 1

    def prepare(self) -> None:
        if self.image is not None and not self.image.any():
            raise BadRequest("Input image is entirely zero.")

    def do(self, operation: Operation, buffer: np.ndarray | None = None) -> Outcome:
        engine = self._engine
        engine.is_at_work.set()
        assert engine.go_on.wait(60)
        if engine.failure is not None:
            raise engine.failure
        if engine.losses:
            engine.losses -= 1
            raise EngineLost("The engine's process died.")
        if operation.name in PROMPTS and self.image is None:
            raise BadRequest("There is no image yet.")
        outcome = self._do(operation, buffer)
        engine.done.append(operation.name)
        return outcome

    def _do(self, operation: Operation, new: np.ndarray | None) -> Outcome:
        fields, before = operation.fields, None if self.buffer is None else self.buffer.copy()
        box: Bounds | None = None
        ran = bool(fields.get("run_prediction"))
        if operation.name == SET_TARGET_BUFFER:
            asked_for = Buffer(to_shape(fields["shape"]), fields["dtype"])
            self.buffer = np.zeros(asked_for.shape, asked_for.dtype) if new is None else new
            self._carry(buffer=asked_for)
        elif operation.name == SET_DO_AUTOZOOM:
            self._carry(autozoom=fields["do_autozoom"])
        elif operation.name == UNDO:
            ran = self._undo is not None
            if self._undo is not None and self.buffer is not None and self._carried.buffer is not None:
                self.buffer[:] = self._undo
                box, self._undo = self._carried.buffer.bounds, None
            return Outcome(ran, box, self._carried)
        elif operation.name == RESET:
            if self.buffer is not None:
                self.buffer[:] = 0
            self._undo = None
        else:
            box = self._paint(operation)
            if self._engine.moved_voxels and self.buffer is not None:
                self.buffer.reshape(-1)[np.flatnonzero(self.buffer)[: self._engine.moved_voxels]] = 0
                self._engine.moved_voxels = 0
            self._undo = before
        return Outcome(ran, box if ran else None, self._carried)

    def _paint(self, operation: Operation) -> Bounds | None:
        from nnInteractive.inference.remote.serialization import unpack_array

        fields = operation.fields
        assert self.buffer is not None
        if operation.name == ADD_POINT:
            sides = zip(fields["coordinates"], self.buffer.shape, strict=True)
            box = to_bounds((max(0, round(at) - RADIUS), min(side, round(at) + RADIUS + 1)) for at, side in sides)
            self.buffer[tuple(slice(*pair) for pair in box)] = fields["include_interaction"]
            return box
        if operation.name == ADD_INITIAL_SEG:
            self.buffer[:] = unpack_array(operation.body)
            return self._carried.buffer.bounds if self._carried.buffer else None
        assert operation.name in (ADD_SCRIBBLE, ADD_LASSO)
        drawn = unpack_array(operation.body).astype(bool)
        self.buffer[drawn] = fields["include_interaction"]
        return self._carried.buffer.bounds if self._carried.buffer else None

    def _carry(self, **changes: Any) -> None:
        self._carried = Carried(**{**vars(self._carried), **changes})

    def pack(self, box: Bounds) -> bytes:
        from nnInteractive.inference.remote.serialization import pack_array

        assert self.buffer is not None
        return bytes(pack_array(np.ascontiguousarray(self.buffer[tuple(slice(*pair) for pair in box)])))

    def correct(self, places: np.ndarray, values: np.ndarray) -> None:
        assert self.buffer is not None
        self.buffer.reshape(-1)[places] = values

    def close(self) -> None:
        self._engine.is_open -= 1
