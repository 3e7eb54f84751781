"""What an engine must do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from dls.server.volume import Box, Mask, Prompt, Volume


@dataclass(frozen=True)
class Step:
    """What an engine does while it gets ready; `total` 0 where it is not known how far that goes."""

    name: str
    text: str
    done: int = 0
    total: int = 0


Tell = Callable[[Step], None]
"""Takes each step of a long piece of work, as it begins and as it goes on."""


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

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Add, on a fresh segmentation, what was added to another one: the mask is the same then."""

    def reset(self) -> None:
        """Forget every prompt and empty the mask; what follows can't tell it from a fresh segmentation."""

    def close(self) -> None:
        """Give back the memory."""


class Engine(Protocol):
    """Segments images; made once, shared by all sessions."""

    name: str
    key: str
    """What a session must share that was begun with another process: the same key, the same masks. Once it is ready."""
    device: str
    """Where it computes, as the banner and the logs say it."""
    notice: str
    """What its user should know once it is ready, such as the licence of weights that have just been fetched."""
    threads: int
    """How many prompts it works on at once."""
    models: tuple[Model, ...]

    def load(self, tell: Tell) -> None:
        """Get ready for the first prompt, saying how far that is; raises EngineError. Runs on the engine's thread."""

    def session_bytes(self, voxels: int) -> int:
        """Return the memory that an image of so many voxels takes while it is open, its mask included."""

    def open(self, volume: Volume, mask: Mask | None = None) -> Segmentation:
        """Start on an image, beside other sessions' prompts; may change the volume in place, and keep it.

        `mask`, all zeros, is where the segmentation's mask is to be kept; by default in memory of its own.
        """

    def native_api(self, queue: ThreadPoolExecutor) -> Any:
        """Return an ASGI application for another protocol that works on the same queue, or None; called once loaded."""

    def close(self) -> None:
        """Give back everything."""
