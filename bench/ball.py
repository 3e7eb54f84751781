"""An engine that paints a ball and nothing more, so that what is measured is the server's own work."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dls.server.engines.base import Model, ReportProgress
from dls.server.options import EngineOptions
from dls.server.volume import LASSO, POINT, SCRIBBLE, Box, Mask, Prompt, Volume

RADIUS = 20


class BallEngine:
    """Paints; `dls serve --engine ball:BallEngine` with this folder in PYTHONPATH."""

    name = key = "ball"
    device, notice, threads = "cpu", "", 2
    models: tuple[Model, ...] = (Model("nnInteractive", (POINT, SCRIBBLE, LASSO)),)

    def __init__(self, options: EngineOptions | None = None) -> None:
        pass

    def load(self, report: ReportProgress) -> None:
        """There is nothing to load."""

    def session_bytes(self, voxels: int) -> int:
        """The image and the mask."""
        return 5 * voxels

    def open(self, volume: Volume, mask: Mask | None = None) -> BallSegmentation:
        """Keep the image, as an engine would."""
        return BallSegmentation(volume, np.zeros(volume.geometry.shape, np.uint8) if mask is None else mask)

    def native_api(self, pool: ThreadPoolExecutor) -> Any:
        """There is none."""

    def close(self) -> None:
        """There is nothing to give back."""


class BallSegmentation:
    """A mask with balls around what was drawn."""

    def __init__(self, volume: Volume, mask: Mask) -> None:
        self._volume = volume
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Paint a ball around the middle of the prompt."""
        middle = [start + size // 2 for start, size in zip(prompt.origin, prompt.mask.shape, strict=True)]
        box = tuple(
            slice(max(0, at - RADIUS), min(side, at + RADIUS + 1))
            for at, side in zip(middle, self.mask.shape, strict=True)
        )
        z, y, x = np.ogrid[box]
        inside = (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 <= RADIUS**2
        self.mask[box][inside] = prompt.foreground
        return box[0], box[1], box[2]

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Paint them all."""
        for prompt in prompts:
            self.add(prompt)

    def reset(self) -> None:
        """Empty the mask."""
        self.mask[:] = 0

    def close(self) -> None:
        """There is nothing to give back."""
