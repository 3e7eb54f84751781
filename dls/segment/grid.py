"""The grid of an image: where its voxels lie, and which voxel a coordinate means; pure.

Here, as in image files and on the command line, the axis order is (x, y, z), and a grid may have two axes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dls.errors import SegmentError

VOXEL, LPS, RAS = "voxel", "lps", "ras"
"""What coordinates count: voxels from 0, or millimetres with x to the left and y to the back (LPS, as ITK has them and
ITK-SNAP shows them as "World units (ITK)"), or x to the right and y to the front (RAS, as NIfTI has them)."""
SYSTEMS = (VOXEL, LPS, RAS)
TOLERANCE = 1e-3
"""Share of a voxel by which two grids may differ: files store single precision."""


@dataclass(frozen=True)
class Grid:
    """Size, spacing (mm), origin (mm, LPS) and direction (row by row) of an image of two or three axes."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape (z, y, x) of the image as a volume; an image of two axes is one slice."""
        x, y, z = (*self.size, 1)[:3]
        return z, y, x

    @property
    def volume_spacing(self) -> tuple[float, float, float]:
        """The spacing (z, y, x) of the image as a volume."""
        x, y, z = (*self.spacing, 1.0)[:3]
        return z, y, x

    @property
    def voxel_mm3(self) -> float:
        """The volume of a voxel in cubic millimetres; a slice without a third axis counts as 1 mm thick."""
        return float(np.prod(self.spacing))

    @property
    def _matrix(self) -> np.ndarray:
        """The matrix from voxels to millimetres."""
        axes = len(self.size)
        matrix: np.ndarray = np.array(self.direction).reshape(axes, axes) * np.array(self.spacing)
        return matrix

    def to_voxel(self, at: Sequence[float], system: str, name: str) -> tuple[int, int, int]:
        """Return the voxel (z, y, x) nearest to a coordinate; `name` says in an error what the coordinate is of.

        Raises SegmentError for a coordinate outside the image, or with another number of axes.
        """
        if len(at) != len(self.size):
            raise SegmentError(f"{name} has {len(at)} coordinates; the image has {len(self.size)} axes.")
        voxel = np.array(at, float)
        if system != VOXEL:
            voxel = np.linalg.solve(self._matrix, self._to_lps(voxel, system) - np.array(self.origin))
        nearest = np.floor(voxel + 0.5)
        if not ((nearest >= 0) & (nearest < self.size)).all():
            raise SegmentError(f"{name} lies outside the image.", self._describe_range(system))
        x, y, z = (*(int(one) for one in nearest), 0)[:3]
        return z, y, x

    def _to_lps(self, at: np.ndarray, system: str) -> np.ndarray:
        return at * np.array([-1.0, -1.0, 1.0])[: len(at)] if system == RAS else at

    def _describe_range(self, system: str) -> str:
        low, high = np.zeros(len(self.size)), np.array(self.size, float) - 1
        unit = "counted from 0"
        if system != VOXEL:
            corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(len(self.size), -1)
            places = self._to_lps((self._matrix @ corners).T + np.array(self.origin), system)
            low, high = places.min(0), places.max(0)
            unit = f"mm, {system.upper()}"
        ranges = (f"{axis} from {a:.6g} to {b:.6g}" for axis, a, b in zip("xyz", low, high, strict=False))
        return f"The image has {', '.join(ranges)} ({unit})."

    def differs(self, other: Grid) -> str:
        """Return in which respect another grid is not the same, or an empty text."""
        if self.size != other.size:
            return f"size {_times(other.size)}, not {_times(self.size)}"
        step = TOLERANCE * min(self.spacing)
        for name, limit in (("spacing", step), ("origin", step), ("direction", TOLERANCE)):
            if not np.allclose(getattr(self, name), getattr(other, name), rtol=0, atol=limit):
                return f"another {name}"
        return ""


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
