"""Draws three slices of a small volume with the mask over them, as a PNG with a palette. No files, no clocks."""

from __future__ import annotations

import itertools
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dls.server.pictures.samples import GREYS
from dls.server.volume import Geometry, Mask

TILE = 192
"""Height and width in pixels of one slice; a picture has three side by side."""
MARGIN = 6
"""Least pixels between a slice and the border of its tile."""
OUTLINE = GREYS + 1
"""Palette entry of the mask's outline; below it are the grey levels, above it the same under the mask."""
COLOR = (255, 106, 77)
"""Red, green and blue of the mask."""
SHARE = 0.45
"""Share of the mask's color in a voxel under it."""

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Small:
    """A small volume, its axes from head to foot reversed: (superior, posterior, left), as ITK's world has them."""

    values: Mask
    millimetres: tuple[float, float, float]
    """Extent of the whole volume along each axis."""


def orient(values: Mask, geometry: Geometry) -> Small:
    """Turn and mirror a small volume (z, y, x) so that its axes are those of the patient, as nearly as they can be."""
    direction = np.array(geometry.direction, float).reshape(3, 3) if len(geometry.direction) == 9 else np.eye(3)
    lengths = np.abs(direction)
    # axes[w] is the voxel axis, x, y or z, that runs most along the world's axis w.
    axes = max(itertools.permutations(range(3)), key=lambda order: sum(lengths[w, v] for w, v in enumerate(order)))
    turned = values.transpose([2 - axes[w] for w in (2, 1, 0)])
    turned = turned[tuple(slice(None, None, -1 if direction[w, axes[w]] < 0 else 1) for w in (2, 1, 0))]
    z, y, x = (side * step for side, step in zip(geometry.shape, geometry.spacing, strict=True))
    extents = [(x, y, z)[axes[w]] for w in (2, 1, 0)]
    return Small(np.ascontiguousarray(turned), (extents[0], extents[1], extents[2]))


def draw(image: Small, mask: Small | None) -> bytes:
    """Return a PNG of the axial, coronal and sagittal slice: where the mask is largest, or the middle ones."""
    scale = (TILE - 2 * MARGIN) / max(image.millimetres)
    sheet = np.zeros((TILE, 3 * TILE), np.uint8)
    for axis in range(3):
        place = _choose_slice(image, mask, axis)
        sides = [max(1, round(image.millimetres[other] * scale)) for other in range(3) if other != axis]
        grey = _resize(_slice(image, axis, place), sides[0], sides[1])
        tile = np.rint(grey).astype(np.uint8)
        if mask is not None:
            tile = _lay_over(tile, _resize(_slice(mask, axis, place), sides[0], sides[1]) > 0.5)
        top, left = (TILE - sides[0]) // 2, axis * TILE + (TILE - sides[1]) // 2
        sheet[top : top + sides[0], left : left + sides[1]] = tile
    return encode_png(sheet, make_palette())


def _choose_slice(image: Small, mask: Small | None, axis: int) -> int:
    if mask is not None and mask.values.any():
        areas = mask.values.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.int64)
        return int(np.argmax(areas))
    return int(image.values.shape[axis] // 2)


def _slice(small: Small, axis: int, place: int) -> Values:
    """Return a slice as it is looked at: the head above, the face above or to the left."""
    values: Values = np.take(small.values, place, axis).astype(np.float32)
    return values if axis == 0 else values[::-1]


def _resize(values: Values, height: int, width: int) -> Values:
    """Return the slice with another number of pixels, by linear interpolation."""
    for axis, size in enumerate((height, width)):
        have = values.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * have / size - 0.5, 0, have - 1)
        low = np.floor(at).astype(int)
        part = (at - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        first, second = np.take(values, low, axis), np.take(values, np.minimum(low + 1, have - 1), axis)
        values = first + (second - first) * part
    return values


def _lay_over(tile: Mask, inside: npt.NDArray[np.bool_]) -> Mask:
    """Color what lies under the mask, and draw its outline within it."""
    framed = np.pad(inside, 1)
    core = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    colored = np.where(inside, tile + OUTLINE + 1, tile)
    return np.where(inside & ~core, OUTLINE, colored).astype(np.uint8)


def make_palette() -> bytes:
    """Return red, green and blue of each palette entry."""
    greys = np.repeat(np.linspace(0, 255, GREYS + 1)[:, None], 3, axis=1)
    under = (1 - SHARE) * greys + SHARE * np.array(COLOR)
    colors = np.concatenate((greys, [COLOR], under))
    return np.rint(colors).astype(np.uint8).tobytes()


def encode_png(pixels: Mask, palette: bytes) -> bytes:
    """Return the pixels, which are entries of the palette, as a PNG."""
    height, width = pixels.shape
    rows = np.concatenate((np.zeros((height, 1), np.uint8), pixels), axis=1)  # each begins with the filter "none"
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
