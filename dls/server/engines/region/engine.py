"""The engine: images in, prompts one by one, one mask that changes in place."""

from __future__ import annotations

import logging

import numpy as np

from dls.server.engines.base import Model
from dls.server.engines.region import grow
from dls.server.volume import LASSO, POINT, SCRIBBLE, Box, Float32, Mask, Prompt, Volume, union

LARGEST = np.float32(1e18)
"""Its square is still a float32."""

log = logging.getLogger("dls.server")


class RegionEngine:
    """Segments by region growing; computes on the CPU, two prompts at a time."""

    name = "region"
    device = "cpu"
    threads = 2
    models: tuple[Model, ...] = (Model("region", (POINT, SCRIBBLE, LASSO)),)

    def open(self, volume: Volume) -> RegionSegmentation:
        """Start on an image; values that are no use are changed in place: no number to 0, beyond 1e18 to that."""
        odd = sum(_tamed(plane) for plane in volume.data)
        if odd:
            log.info("%d voxels are not finite numbers, or beyond 1e18; they count as 0 or 1e18", odd)
        return RegionSegmentation(volume)

    def close(self) -> None:
        """There is nothing to give back."""


def _tamed(plane: Float32) -> int:
    """Change what is no use in a slice and return how many voxels that were; a slice at a time, for the memory."""
    usable = np.abs(plane) <= LARGEST
    if usable.all():
        return 0
    np.nan_to_num(plane, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    np.clip(plane, -LARGEST, LARGEST, out=plane)
    return int(usable.size - np.count_nonzero(usable))


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
            box, crop = grown
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
