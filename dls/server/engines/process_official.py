"""Sessions of official clients in the engine's process, seen from the server: their buffers are in shared memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dls.errors import EngineLost
from dls.server.engines.worker_process import WorkerProcess
from dls.server.operations import SET_TARGET_BUFFER, Bounds, Buffer, Carried, Operation, Outcome, to_shape
from dls.server.shared_memory import SharedBlock

log = logging.getLogger("dls.server")


class ProcessOfficial:
    """Starts the sessions in the process that `process` returns; `limit` returns the seconds that a step may take."""

    def __init__(self, process: Callable[[], WorkerProcess], limit: Callable[[], float]) -> None:
        self._process, self._limit = process, limit
        self._numbers = iter(range(1, 1 << 62))
        self.capabilities: dict[str, Any] = {}

    def open(
        self, image: Path | None, carried: Carried, buffer: npt.NDArray[Any] | None = None
    ) -> ProcessOfficialSegmentation:
        """Start a session in the process, which reads the image's file itself."""
        process, number = self._process(), next(self._numbers)
        block = None if carried.buffer is None else SharedBlock(carried.buffer.bytes)
        process.call("official_open", number, None if image is None else str(image), carried, block and block.path)
        segmentation = ProcessOfficialSegmentation(process, number, self._limit())
        if block is not None:
            assert carried.buffer is not None
            segmentation.take_buffer(block, carried.buffer)
        return segmentation


class ProcessOfficialSegmentation:
    """One session in the engine's process; both processes map its buffer."""

    def __init__(self, process: WorkerProcess, number: int, limit: float) -> None:
        self._process, self._number, self._limit = process, number, limit
        self.buffer: npt.NDArray[Any] | None = None

    def take_buffer(self, block: SharedBlock, buffer: Buffer) -> None:
        """Map the block as the buffer."""
        self.buffer = block.array(buffer.shape, buffer.dtype)
        block.close()

    def prepare(self) -> None:
        """Wait until the image is prepared in the process."""
        self._process.call("official_prepare", self._number)

    def do(self, operation: Operation, buffer: npt.NDArray[Any] | None = None) -> Outcome:
        """Carry out the operation in the process; a new buffer is made here."""
        block = None
        if operation.name == SET_TARGET_BUFFER:
            asked_for = Buffer(to_shape(operation.fields["shape"]), operation.fields["dtype"])
            block = SharedBlock(asked_for.bytes)
        outcome: Outcome = self._process.call(
            "official_do", self._number, operation, block and block.path, limit=self._limit
        )
        if block is not None:
            self.take_buffer(block, asked_for)
        return outcome

    def pack(self, box: Bounds) -> bytes:
        """Return that part of the buffer, packed in the process: this one has no blosc2."""
        packed: bytes = self._process.call("official_pack", self._number, box, limit=self._limit)
        return packed

    def correct(self, places: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
        """Replace voxels of the buffer."""
        self._process.call("official_correct", self._number, places, values, limit=self._limit)

    def close(self) -> None:
        """Free the memory in the process; if the process is gone, nothing is left to free."""
        try:
            self._process.call("official_close", self._number)
        except EngineLost:
            log.debug("the session was freed when its process ended")
