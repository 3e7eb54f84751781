"""The demo's picture: each mask over three slices of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

SCALE = 3
"""Factor by which slices are enlarged."""
GAP = 12
"""Pixels between slices."""
CAPTION = 22
"""Height of a caption in pixels."""
COLORS = ((255, 92, 64), (64, 196, 255), (140, 255, 96), (255, 214, 64))
"""Colors (red, green, blue) of the masks, in the order of the rows."""


def draw(
    path: Path, volume: npt.NDArray[np.float32], rows: list[tuple[str, npt.NDArray[np.uint8], tuple[int, int, int]]]
) -> None:
    """Write a PNG with a row of three slices (axial, coronal, sagittal) for each caption, mask and center (z, y, x)."""
    tiles = [
        [_draw_slice(volume, mask, center, axis, n) for axis in range(3)] for n, (_, mask, center) in enumerate(rows)
    ]
    width = sum(tile.width for tile in tiles[0]) + 4 * GAP
    height = sum(max(tile.height for tile in row) + CAPTION + GAP for row in tiles) + GAP
    sheet = Image.new("RGB", (width, height), (18, 18, 22))
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for (caption, _, _), row in zip(rows, tiles, strict=True):
        pen.text((GAP, top), caption, fill=(230, 230, 230))
        left = GAP
        for tile in row:
            sheet.paste(tile, (left, top + CAPTION))
            left += tile.width + GAP
        top += max(tile.height for tile in row) + CAPTION + GAP
    sheet.save(path)


def _draw_slice(
    volume: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8], center: tuple[int, int, int], axis: int, color: int
) -> Image.Image:
    image = np.take(volume, center[axis], axis)[::-1]
    inside = np.take(mask, center[axis], axis)[::-1] > 0
    grey = np.clip(image / max(float(volume.max()), 1e-6) * 255, 0, 255)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    rgb[inside] = 0.55 * rgb[inside] + 0.45 * np.array(COLORS[color % len(COLORS)])
    tile = Image.fromarray(rgb.astype(np.uint8))
    return tile.resize((tile.width * SCALE, tile.height * SCALE), Image.Resampling.NEAREST)
