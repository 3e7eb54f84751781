"""Makes a small volume of an image or a mask while it is inflated, so that it is never in memory as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dls.errors import BadRequest
from dls.server.volume import Float32, Mask
from dls.server.wire.upload import Inflater, Sink

LONGEST = 144
"""Most voxels of a small volume along an axis."""
READ_BYTES = 1 << 18
GREYS = 126
"""The brightest grey level of a small image."""
DARKEST, BRIGHTEST = 0.5, 99.5
"""Percentiles of an image's voxels that are shown black and white."""


class Sampler(Sink):
    """Reduces the planes of a volume, (z, y, x), one after the other."""

    def __init__(self, shape: tuple[int, int, int], dtype: str) -> None:
        self._shape = shape
        self._dtype = np.dtype(dtype)
        self._steps = [-(-side // LONGEST) for side in shape]
        self._plane_bytes = shape[1] * shape[2] * self._dtype.itemsize
        self._left = bytearray()
        self._z = 0
        counts = [-(-side // step) for side, step in zip(shape, self._steps, strict=True)]
        self.small = np.zeros(counts, self._dtype)
        """The small volume."""

    def write(self, block: bytes) -> None:
        """Take the next bytes of the volume."""
        self._left += block
        count = len(self._left) // self._plane_bytes
        if not count:
            return
        end = count * self._plane_bytes
        planes = np.frombuffer(bytes(memoryview(self._left)[:end]), self._dtype).reshape(count, *self._shape[1:])
        del self._left[:end]
        for plane in planes[: self._shape[0] - self._z]:
            self._take(self._z // self._steps[0], self._z % self._steps[0], plane)
            self._z += 1

    def _take(self, index: int, place: int, plane: npt.NDArray[np.generic]) -> None:
        """Add a plane to the small volume; `place` is its place among those that become one plane."""
        raise NotImplementedError

    def _reduce(self, plane: npt.NDArray[np.generic], how: np.ufunc) -> npt.NDArray[np.generic]:
        """Reduce every block of a plane's voxels to one by `how`, which is np.add or np.maximum."""
        _, y, x = self._steps
        rows = how.reduceat(plane, np.arange(0, plane.shape[0], y), axis=0)
        reduced: npt.NDArray[np.generic] = how.reduceat(rows, np.arange(0, plane.shape[1], x), axis=1)
        return reduced


class ImageSampler(Sampler):
    """Keeps one plane of several, and the mean of its blocks: a picture of fewer voxels without their noise."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(shape, "<f4")
        ones = np.ones(shape[1:], np.float32)
        self._sizes = self._reduce(ones, np.add)

    def _take(self, index: int, place: int, plane: npt.NDArray[np.generic]) -> None:
        if place == 0:
            finite = np.nan_to_num(plane.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
            self.small[index] = self._reduce(finite, np.add) / self._sizes  # type: ignore[operator]


class MaskSampler(Sampler):
    """Keeps a voxel wherever any voxel of its block is set, so that a thin mask does not vanish."""

    def __init__(self, shape: tuple[int, int, int], item_bytes: int = 1) -> None:
        super().__init__(shape, f"u{item_bytes}")

    def _take(self, index: int, place: int, plane: npt.NDArray[np.generic]) -> None:
        if plane.any():
            np.maximum(self.small[index], self._reduce(plane, np.maximum), out=self.small[index])


def read_image(path: Path, shape: tuple[int, int, int]) -> Mask:
    """Return a small volume, in grey levels from 0 to GREYS, of the image in a file; raises OSError or RequestError."""
    sampler = ImageSampler(shape)
    _inflate(path, sampler, 4 * int(np.prod(shape)))
    return _to_greys(sampler.small)


def read_mask(path: Path, shape: tuple[int, int, int]) -> Mask:
    """Return a small volume of 0 and 1 of the mask in a file; raises OSError or RequestError.

    A mask of ITK-SNAP has one byte a voxel; the buffer of an official client has what its client wanted.
    """
    voxels = int(np.prod(shape))
    item_bytes = _inflated_bytes(path) // voxels
    if item_bytes not in (1, 2, 4, 8):
        raise BadRequest("The mask has not the size of the image.")
    sampler = MaskSampler(shape, item_bytes)
    _inflate(path, sampler, item_bytes * voxels)
    return (sampler.small > 0).astype(np.uint8)


def _inflated_bytes(path: Path) -> int:
    """Return the length of the data in a gzip member, as its trailer says it (RFC 1952): modulo 4 GiB."""
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(4), "little")


def _inflate(path: Path, sink: Sink, size: int) -> None:
    inflater = Inflater(sink, size)
    inflater.expect(size)
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            inflater.feed(block)
    inflater.finish()


def _to_greys(values: Float32) -> Mask:
    low, high = (float(value) for value in np.percentile(values, (DARKEST, BRIGHTEST)))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (GREYS / (high - low)) if high > low else np.zeros_like(values)
    return np.clip(np.rint(scaled), 0, GREYS).astype(np.uint8)
