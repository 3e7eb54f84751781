"""The interface of an engine: every engine implements the protocols of this module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dls.server.operations import Bounds, Carried, Operation, Outcome
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


class OfficialSegmentation(Protocol):
    """What the engine holds of one session of an official client (`operations` says what that is)."""

    @property
    def buffer(self) -> npt.NDArray[Any] | None:
        """The array that predictions are written to, as it is now; None before there is one."""

    def prepare(self) -> None:
        """Wait until the image is prepared. Raises BadRequest for an image that can't be."""

    def do(self, operation: Operation, buffer: npt.NDArray[Any] | None = None) -> Outcome:
        """Carry out the operation; done again in the same order, operations give the same buffer.

        `buffer`, all zeros, is the array that becomes the buffer where the operation asks for a new one; by default
        the engine allocates one. A prompt that fails leaves everything as it was. Raises BadRequest or Exhausted.
        """

    def pack(self, box: Bounds) -> bytes:
        """Return that part of the buffer as official clients unpack it."""

    def correct(self, places: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
        """Replace voxels of the buffer, at places in its flat order, after a replay that gave others there."""

    def close(self) -> None:
        """Free the memory."""


class OfficialEngine(Protocol):
    """Serves official clients."""

    @property
    def capabilities(self) -> dict[str, Any]:
        """What clients are told of the model, once it is loaded."""

    def open(
        self, image: Path | None, carried: Carried, buffer: npt.NDArray[Any] | None = None
    ) -> OfficialSegmentation:
        """Start a session with the image in a file, as it was received, and with what the session carries.

        `buffer`, all zeros, is the array that becomes the buffer where one is carried; by default the engine
        allocates one. The image is prepared behind. Raises BadRequest for a file that can't be read as an image.
        """


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

    @property
    def official(self) -> OfficialEngine | None:
        """The engine as official clients use it, or None for an engine that can't serve them."""

    def load(self, report: ReportProgress) -> None:
        """Prepare the engine for its first prompt, on the engine's thread. Raises EngineError."""

    def session_bytes(self, voxels: int) -> int:
        """Return the bytes of memory that an open image of so many voxels takes, including its mask."""

    def open(self, volume: Volume, mask: Mask | None = None) -> Segmentation:
        """Start to segment an image, while other sessions' prompts run; may change and keep the volume's data.

        `mask`, all zeros, is the array to hold the segmentation's mask; by default the engine allocates one.
        """

    def close(self) -> None:
        """Free all memory."""
