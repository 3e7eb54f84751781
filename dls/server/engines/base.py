"""The interface of an engine: every engine implements the protocols of this module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from dls.server.volume import Box, Mask, Prompt, Volume


@dataclass(frozen=True)
class Progress:
    """A step of loading an engine, and how much of it is done; `total` is 0 where it is not known."""

    name: str
    text: str
    done: int = 0
    total: int = 0


ReportProgress = Callable[[Progress], None]
"""Called when a step of a long task begins, and again while the step runs."""


@dataclass(frozen=True)
class Model:
    """A model as the client lists it."""

    id: str
    interactions: tuple[str, ...]
    channels: tuple[int, ...] = (1,)
    dimensions: int = 3


class Segmentation(Protocol):
    """The segmentation of one image: each prompt changes its mask in place."""

    mask: Mask
    """Shape (z, y, x) of the image, values 0 and 1."""

    def add(self, prompt: Prompt) -> Box | None:
        """Refine the mask by the prompt and return a box that contains every change; None for no change.

        A prompt that fails leaves the segmentation as it was.
        """

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Add, to a new segmentation, the prompts of an earlier one.

        The result is the same mask, but for the voxels that rounding on a GPU changes.
        """

    def restore(self, mask: Mask) -> None:
        """Replace the mask after a replay whose result differs from it in a few voxels; the next prompt refines it."""

    def reset(self) -> None:
        """Remove every prompt and empty the mask; afterwards it behaves as a new segmentation does."""

    def close(self) -> None:
        """Free the memory."""


class Engine(Protocol):
    """Segments images; one engine serves all sessions."""

    name: str
    key: str
    """Identifies what computes the masks, once the engine is loaded: a session continues only under the same key."""
    device: str
    """The device that computes, as the banner and the logs name it."""
    notice: str
    """Text for the user once the engine is loaded, such as the licence of weights that have just been downloaded."""
    threads: int
    """Number of prompts that the engine computes at once."""
    models: tuple[Model, ...]

    def load(self, report: ReportProgress) -> None:
        """Prepare the engine for its first prompt, on the engine's thread. Raises EngineError."""

    def session_bytes(self, voxels: int) -> int:
        """Return the bytes of memory that an open image of so many voxels takes, including its mask."""

    def open(self, volume: Volume, mask: Mask | None = None) -> Segmentation:
        """Start to segment an image, while other sessions' prompts run; may change and keep the volume's data.

        `mask`, all zeros, is the array to hold the segmentation's mask; by default the engine allocates one.
        """

    def native_api(self, pool: ThreadPoolExecutor) -> Any:
        """Return an ASGI application that serves the engine's native API and computes on the pool, or None.

        Called after `load`.
        """

    def close(self) -> None:
        """Free all memory."""
