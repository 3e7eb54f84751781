"""What an engine must do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dls.server.volume import Box, Mask, Prompt, Volume


@dataclass(frozen=True)
class Model:
    """A model as the client lists it."""

    id: str
    interactions: tuple[str, ...]
    channels: tuple[int, ...] = (1,)
    dimensions: int = 3


class Segmentation(Protocol):
    """One image being segmented: prompts go in, the mask changes in place."""

    mask: Mask
    """Shape (z, y, x), 0 or 1, of the image's size."""

    def add(self, prompt: Prompt) -> Box | None:
        """Refine the mask by the prompt and return a box that holds every change; None for no change.

        A prompt that fails leaves the segmentation as it was.
        """

    def reset(self) -> None:
        """Forget every prompt and empty the mask; what follows can't tell it from a fresh segmentation."""

    def close(self) -> None:
        """Give back the memory."""


class Engine(Protocol):
    """Segments images; made once, shared by all sessions."""

    name: str
    device: str
    """Where it computes, as the banner and the logs say it."""
    threads: int
    """How many prompts it works on at once."""
    models: tuple[Model, ...]

    def open(self, volume: Volume) -> Segmentation:
        """Start on an image; the engine may change the volume's non-finite values in place."""

    def close(self) -> None:
        """Give back everything."""
