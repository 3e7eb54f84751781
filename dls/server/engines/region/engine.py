"""The engine: images in, prompts one by one, one mask that changes in place."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dls.server.engines.base import Model, Tell
from dls.server.engines.sanitize import clean
from dls.server.volume import LASSO, POINT, SCRIBBLE, Box, Mask, Prompt, Volume, union


class RegionEngine:
    """Segments by region growing; computes on the CPU, two prompts at a time."""

    name = "region"
    key = "region"
    device = "cpu"
    notice = ""
    threads = 2
    models: tuple[Model, ...] = (Model("region", (POINT, SCRIBBLE, LASSO)),)

    def load(self, tell: Tell) -> None:
        """Import what computes: scipy and scikit-image take most of a second, and the HTTP side never needs them."""
        from dls.server.engines.region import grow

        assert grow

    def session_bytes(self, voxels: int) -> int:
        """The image (float32) and the mask (uint8)."""
        return 5 * voxels

    def open(self, volume: Volume, mask: Mask | None = None) -> RegionSegmentation:
        """Start on an image."""
        clean(volume.data)
        return RegionSegmentation(volume, np.zeros(volume.geometry.shape, np.uint8) if mask is None else mask)

    def native_api(self, queue: ThreadPoolExecutor) -> None:
        """There is none."""

    def close(self) -> None:
        """There is nothing to give back."""


class RegionSegmentation:
    """One image and its prompts; every prompt grows the whole region anew."""

    def __init__(self, volume: Volume, mask: Mask) -> None:
        self._volume = volume
        self._prompts: list[Prompt] = []
        self._box: Box | None = None
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Grow the region from all prompts; the mask changes only when that has worked."""
        return self._refine([*self._prompts, prompt])

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Grow the region from all of them at once: it is what the last of them gave."""
        self._refine(list(prompts))

    def _refine(self, prompts: list[Prompt]) -> Box | None:
        from dls.server.engines.region import grow

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
        """Let go of the prompts."""
        self._prompts = []
