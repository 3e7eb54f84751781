"""An engine that paints a ball and does nothing else, so that the time measured is the server's own."""

from __future__ import annotations

import numpy as np

from dls.server.engines.base import Model, ReportProgress
from dls.server.engines.constant import ConstantSegmentation
from dls.server.options import EngineOptions
from dls.server.volume import LASSO, POINT, SCRIBBLE, Box, Mask, Prompt, Volume

RADIUS = 20


class BallEngine:
    """An engine that paints balls: `dls serve --engine ball:BallEngine`, with this folder in PYTHONPATH."""

    name = key = "ball"
    device, notice, threads = "cpu", "", 2
    models: tuple[Model, ...] = (Model("nnInteractive", (POINT, SCRIBBLE, LASSO)),)
    official = None

    def __init__(self, options: EngineOptions | None = None) -> None:
        pass

    def load(self, report: ReportProgress) -> None:
        """Load nothing."""

    def session_bytes(self, voxels: int) -> int:
        """Return the bytes of the image and the mask."""
        return 5 * voxels

    def open(self, volume: Volume, mask: Mask | None = None) -> BallSegmentation:
        """Return a segmentation that holds the image, as an engine does."""
        return BallSegmentation(volume, np.zeros(volume.geometry.shape, np.uint8) if mask is None else mask)

    def close(self) -> None:
        """Release nothing."""


class BallSegmentation(ConstantSegmentation):
    """A mask with a ball at each prompt."""

    def __init__(self, volume: Volume, mask: Mask) -> None:
        super().__init__(mask)
        self._volume = volume

    def add(self, prompt: Prompt) -> Box | None:
        """Paint a ball around the center of the prompt, and return the box that changed."""
        center = [start + size // 2 for start, size in zip(prompt.origin, prompt.mask.shape, strict=True)]
        box = tuple(
            slice(max(0, at - RADIUS), min(side, at + RADIUS + 1))
            for at, side in zip(center, self.mask.shape, strict=True)
        )
        z, y, x = np.ogrid[box]
        inside = (z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2 <= RADIUS**2
        self.mask[box][inside] = prompt.foreground
        return box[0], box[1], box[2]
