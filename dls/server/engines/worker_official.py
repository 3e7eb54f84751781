"""Sessions of official clients inside the engine's process: runs what `process_official` asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dls.server.engines.base import OfficialEngine, OfficialSegmentation
from dls.server.operations import SET_TARGET_BUFFER, Bounds, Carried, Operation, Outcome, to_shape
from dls.server.shared_memory import attach


class OfficialSessions:
    """The sessions of official clients that are open, by number; their buffers are the server's shared blocks."""

    def __init__(self, engine: OfficialEngine | None) -> None:
        self._engine = engine
        self._open: dict[int, OfficialSegmentation] = {}
        self.methods: dict[str, Callable[..., Any]] = {
            "official_open": self.open,
            "official_prepare": self.prepare,
            "official_do": self.do,
            "official_pack": self.pack,
            "official_correct": self.correct,
            "official_close": self.close,
        }
        """By command: the method that carries it out."""

    def open(self, number: int, image: str | None, carried: Carried, block: str | None) -> None:
        """Start a session; `block` is the path of the shared block that becomes its buffer."""
        assert self._engine is not None
        buffer = attach(block, carried.buffer.shape, carried.buffer.dtype) if block and carried.buffer else None
        self._open[number] = self._engine.open(None if image is None else Path(image), carried, buffer)

    def prepare(self, number: int) -> None:
        """Wait until the image is prepared."""
        self._open[number].prepare()

    def do(self, number: int, operation: Operation, block: str | None) -> Outcome:
        """Carry out an operation; `block` is the path of the shared block for a new buffer."""
        buffer = None
        if block is not None and operation.name == SET_TARGET_BUFFER:
            buffer = attach(block, to_shape(operation.fields["shape"]), operation.fields["dtype"])
        return self._open[number].do(operation, buffer)

    def pack(self, number: int, box: Bounds) -> bytes:
        """Return a part of the buffer, packed."""
        return self._open[number].pack(box)

    def correct(self, number: int, places: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
        """Replace voxels of the buffer."""
        self._open[number].correct(places, values)

    def close(self, number: int) -> None:
        """Free the memory of a session."""
        if (segmentation := self._open.pop(number, None)) is not None:
            segmentation.close()
