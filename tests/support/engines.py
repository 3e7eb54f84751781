"""Engines for tests: `dls serve --engine tests.support.engines:NAME` runs them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from dls.server.engines.base import Model, OfficialEngine, ReportProgress
from dls.server.engines.constant import ConstantSegmentation
from dls.server.engines.region import RegionEngine
from dls.server.engines.region.engine import RegionSegmentation
from dls.server.options import EngineOptions
from dls.server.volume import SCRIBBLE, Box, Mask, Prompt, Volume

TROUBLE = "DLS_TEST_TROUBLE"
"""Environment variable with a folder: a file there named after a fault causes it at the next prompt.

The fault happens once, or at every prompt if the file contains "always".
"""


class Troubled(RegionEngine):
    """The region engine, with faults on request."""

    def __init__(self, options: EngineOptions) -> None:
        pass

    def open(self, volume: Volume, mask: Mask | None = None) -> RegionSegmentation:
        plain = super().open(volume, mask)
        return TroubledSegmentation(volume, plain.mask)


class TroubledSegmentation(RegionSegmentation):
    """Dies, hangs, fails or is slow when a file in the folder says so."""

    def add(self, prompt: Prompt) -> Box | None:
        folder = Path(os.environ[TROUBLE])
        for name, fault in FAULTS.items():
            file = folder / name
            if file.exists():
                if file.read_text() != "always":
                    file.unlink()
                fault()
        return super().add(prompt)


def _fail_on_cuda() -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


FAULTS: dict[str, Callable[[], None]] = {
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "cuda": _fail_on_cuda,
    "slow": lambda: time.sleep(3),
}


class Painter:
    """Paints what is drawn into the mask, prompt by prompt, and changes `moved` voxels in a replay, as a GPU may."""

    name, key, device, notice, threads = "painter", "painter", "cpu", "", 1
    models: tuple[Model, ...] = (Model("painter", (SCRIBBLE,)),)
    official: OfficialEngine | None = None
    moved = 0

    def __init__(self, options: EngineOptions | None = None) -> None:
        self.is_open = 0
        """Number of segmentations that are open."""

    def load(self, report: ReportProgress) -> None:
        pass

    def session_bytes(self, voxels: int) -> int:
        return 5 * voxels

    def open(self, volume: Volume, mask: Mask | None = None) -> PainterSegmentation:
        self.is_open += 1
        return PainterSegmentation(self, np.zeros(volume.geometry.shape, np.uint8) if mask is None else mask)

    def close(self) -> None:
        pass


class PainterSegmentation(ConstantSegmentation):
    """What was drawn; every prompt goes on from the mask before it."""

    def __init__(self, engine: Painter, mask: Mask) -> None:
        super().__init__(mask)
        self._engine = engine

    def replay(self, prompts: Sequence[Prompt]) -> None:
        super().replay(prompts)
        self.mask.reshape(-1)[np.flatnonzero(self.mask)[: self._engine.moved]] = 0

    def close(self) -> None:
        self._engine.is_open -= 1


class PainterThatMovesFew(Painter):
    """Changes 3 voxels in a replay."""

    moved = 3


class PainterThatMovesMany(Painter):
    """Changes 300 voxels in a replay."""

    moved = 300


class DiesAtLoad(RegionEngine):
    """Kills its process while it loads."""

    def __init__(self, options: EngineOptions) -> None:
        pass

    def load(self, report: ReportProgress) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
