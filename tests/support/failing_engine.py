"""An engine in this process that fails on demand."""

from __future__ import annotations

import numpy as np

from dls.server.engines.base import Model, ReportProgress
from dls.server.engines.constant import ConstantSegmentation
from dls.server.volume import Box, Mask, Prompt, Volume


class FailingEngine:
    """An engine that raises `failure`, if there is one, at every image and every prompt."""

    name, key, device, notice, threads = "failing", "failing", "cpu", "", 1
    models: tuple[Model, ...] = (Model("failing", ("point",)),)
    official = None

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.loads = 0
        """How often it was loaded."""

    def load(self, report: ReportProgress) -> None:
        self.loads += 1

    def session_bytes(self, voxels: int) -> int:
        return 5 * voxels

    def open(self, volume: Volume, mask: Mask | None = None) -> FailingSegmentation:
        if self.failure:
            raise self.failure
        return FailingSegmentation(self, volume)

    def close(self) -> None:
        pass


class FailingSegmentation(ConstantSegmentation):
    """Paints the prompt into the mask, or raises the engine's failure."""

    def __init__(self, engine: FailingEngine, volume: Volume) -> None:
        super().__init__(np.zeros(volume.geometry.shape, np.uint8))
        self._engine = engine

    def add(self, prompt: Prompt) -> Box | None:
        if self._engine.failure:
            raise self._engine.failure
        return super().add(prompt)
