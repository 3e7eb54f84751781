"""The embedded engine: grows a region from what was drawn, with no GPU, no weights and no torch."""

from __future__ import annotations

import logging

import numpy as np

from dls.server.engines import grow
from dls.server.engines.base import Model
from dls.server.volume import LASSO, POINT, SCRIBBLE, Box, Mask, Prompt, Volume, union

log = logging.getLogger("dls.server")


class RegionEngine:
    """Segments by region growing; computes on the CPU, two prompts at a time."""

    name = "region"
    device = "cpu"
    threads = 2
    models: tuple[Model, ...] = (Model("region", (POINT, SCRIBBLE, LASSO)),)

    def open(self, volume: Volume) -> RegionSegmentation:
        """Start on an image; values that are not finite are set to zero in place."""
        finite = np.isfinite(volume.data)
        if not finite.all():
            log.info("%d voxels are not finite numbers and count as zero", finite.size - int(finite.sum()))
            np.nan_to_num(volume.data, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return RegionSegmentation(volume)

    def close(self) -> None:
        """There is nothing to give back."""


class RegionSegmentation:
    """One image and its prompts; every prompt grows the whole region anew."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._prompts: list[Prompt] = []
        self._box: Box | None = None
        self.mask: Mask = np.zeros(volume.geometry.shape, np.uint8)

    def add(self, prompt: Prompt) -> Box | None:
        """Grow the region from all prompts; the mask changes only when that has worked."""
        prompts = [*self._prompts, prompt]
        grown = grow.segment(self._volume.data, self._volume.geometry.spacing, prompts)
        before = self._box
        self._clear()
        if grown is not None:
            bounds, crop = grown
            z, y, x = (slice(*side) for side in bounds)
            box: Box = (z, y, x)
            self.mask[box] = crop
            self._box = box
        self._prompts = prompts
        return union(before, self._box)

    def reset(self) -> None:
        """Forget the prompts and empty the mask."""
        self._clear()
        self._prompts = []

    def _clear(self) -> None:
        if self._box is not None:
            self.mask[self._box] = 0
        self._box = None

    def close(self) -> None:
        """Let go of the image."""
        self._prompts = []
