"""Volumes, boxes and prompts: the values that the codec, the sessions and the engines exchange."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dls.server.shared_memory import SharedBlock

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Mask = npt.NDArray[np.uint8]
Box = tuple[slice, slice, slice]
"""A half-open box of voxels, in the axis order (z, y, x)."""

POINT, SCRIBBLE, LASSO = "point", "scribble", "lasso"
"""The kinds of prompt."""


@dataclass(frozen=True)
class Geometry:
    """The grid of an image, as the client's metadata describes it but in the axis order (z, y, x)."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Millimetres between voxel centres, in the order (z, y, x)."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    """Nine numbers, row by row, as the client sent them (x, y, z)."""
    components: int = 1
    """Number of values a voxel."""

    @property
    def voxels(self) -> int:
        """Number of voxels in the image."""
        z, y, x = self.shape
        return z * y * x


@dataclass(frozen=True)
class Volume:
    """An image of shape (z, y, x); its values may be NaN or infinite."""

    data: Float32
    geometry: Geometry
    shared: SharedBlock | None = None
    """The shared memory that holds the data, or None."""


@dataclass(frozen=True)
class Prompt:
    """A drawing of the user: a small crop of voxels and its place in the volume, in the axis order (z, y, x)."""

    kind: str
    foreground: bool
    origin: tuple[int, int, int]
    mask: Bool

    @property
    def box(self) -> Box:
        """The place of the crop in the volume."""
        z, y, x = (slice(start, start + size) for start, size in zip(self.origin, self.mask.shape, strict=True))
        return z, y, x

    @classmethod
    def point(cls, z: int, y: int, x: int, *, foreground: bool) -> Prompt:
        """Return a click on one voxel."""
        return cls(POINT, foreground, (z, y, x), np.ones((1, 1, 1), bool))


def union(first: Box | None, second: Box | None) -> Box | None:
    """Return the smallest box that contains both boxes; None stands for an empty box."""
    if first is None or second is None:
        return first or second
    z, y, x = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))
    return z, y, x


def extent(mask: Mask) -> Box | None:
    """Return the box of all z slices from the first to the last one that is not empty; None for an empty mask."""
    occupied = np.flatnonzero(mask.any(axis=(1, 2)))
    if not occupied.size:
        return None
    return slice(int(occupied[0]), int(occupied[-1]) + 1), slice(0, mask.shape[1]), slice(0, mask.shape[2])
