"""A picture for looking: the slices through the middle of a mask, with the mask over the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dls.errors import HostError
from dls.extras import install_hint
from dls.segment.grid import Grid
from dls.segment.images import replacing

PERCENTILES = (1, 99)
"""Percentiles of the image's values that are drawn black and white."""
SAMPLE = 1 << 20
"""Voxels that the percentiles are computed of, about."""
SIDE = 384
"""Pixels of the longest side of a slice, at least."""
GAP, CAPTION = 12, 20
COLOR = np.array((255.0, 92.0, 64.0))
"""Color of the mask."""
PLANES = (("axial", "RL"), ("coronal", "RL"), ("sagittal", "AP"))
"""Names of the planes across the axes (z, y, x), and what is at the left and at the right of their pictures."""


def draw(path: Path, image: npt.NDArray[Any], mask: npt.NDArray[np.uint8], grid: Grid) -> None:
    """Write a PNG with three slices (one for an image of one slice); arrays have the shape (z, y, x).

    The slices are turned as radiologists look at them, to the nearest axes: the patient's right is at the left.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise HostError(
            "The picture is drawn by pillow, which is not installed here.", install_hint("segment")
        ) from error
    image, mask, spacing = orient(image, mask, grid)
    axes, window = range(1 if image.shape[0] == 1 else 3), choose_window(image)
    tiles = [_draw_slice(Image, image, mask, spacing, axis, window) for axis in axes]
    width = sum(tile.width for tile in tiles) + GAP * (len(tiles) + 1)
    sheet = Image.new("RGB", (width, max(tile.height for tile in tiles) + 2 * GAP), (18, 18, 22))
    left = GAP
    for tile in tiles:
        sheet.paste(tile, (left, GAP))
        left += tile.width + GAP
    with replacing(path, "picture") as unfinished:
        sheet.save(unfinished, "PNG")


def orient(
    image: npt.NDArray[Any], mask: npt.NDArray[np.uint8], grid: Grid
) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint8], tuple[float, float, float]]:
    """Return both arrays and the spacing with the axes (z, y, x) that run nearest to up, back and left."""
    if len(grid.size) == 2:
        return image, mask, grid.volume_spacing
    direction = np.array(grid.direction).reshape(3, 3)
    # The axis of the image that is nearest to each of left, back and up, each taken once.
    order: list[int] = []
    for row in np.abs(direction):
        order.append(max((axis for axis in range(3) if axis not in order), key=lambda axis: row[axis]))
    numpy_order = [2 - axis for axis in reversed(order)]
    turned = [np.transpose(array, numpy_order) for array in (image, mask)]
    for row, axis in enumerate(order):
        if direction[row, axis] < 0:
            turned = [np.flip(array, 2 - row) for array in turned]
    z, y, x = (grid.volume_spacing[axis] for axis in numpy_order)
    return turned[0], turned[1], (z, y, x)


def _middle(mask: npt.NDArray[np.uint8], axis: int) -> int:
    """Return the slice through the middle of the mask, or of the image where the mask is empty."""
    others = tuple(other for other in range(3) if other != axis)
    area = mask.sum(axis=others, dtype=np.int64)
    if not area.any():
        return int(mask.shape[axis]) // 2
    return int(np.searchsorted(np.cumsum(area), area.sum() / 2))


def choose_window(image: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the values that are drawn black and white, by percentiles of a sample of the image."""
    step = max(1, image.size // SAMPLE)
    values = image.reshape(-1)[::step].astype(float)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(one) for one in np.percentile(values, PERCENTILES))
    if high <= low:
        low, high = float(values.min()), float(values.max())
    return low, max(high, low + 1e-6)


def _draw_slice(
    pil: Any,
    image: npt.NDArray[Any],
    mask: npt.NDArray[np.uint8],
    spacing: tuple[float, float, float],
    axis: int,
    window: tuple[float, float],
) -> Any:
    """Return the picture of the slice across an axis, with its caption."""
    from PIL import ImageDraw

    at, (low, high) = _middle(mask, axis), window
    flips = np.s_[:, :] if axis == 0 else np.s_[::-1, :]  # up is at the top
    values, inside = (np.take(array, at, axis)[flips] for array in (image, mask))
    grey = np.clip(np.nan_to_num((values.astype(float) - low) / (high - low)), 0, 1) * 255
    rgb = np.repeat(grey[..., None], 3, axis=2)
    rgb[inside > 0] = 0.55 * rgb[inside > 0] + 0.45 * COLOR
    height, width = (side * mm for side, mm in zip(grey.shape, np.delete(spacing, axis), strict=True))
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tile = pil.new("RGB", (max(size[0], 120), size[1] + CAPTION), (18, 18, 22))
    tile.paste(pil.fromarray(rgb.astype(np.uint8)).resize(size, pil.Resampling.NEAREST), (0, CAPTION))
    plane, sides = PLANES[axis]
    caption = f"{plane}  {sides[0]} - {sides[1]}" if image.shape[0] > 1 else "slice"
    ImageDraw.Draw(tile).text((2, 3), caption, fill=(230, 230, 230))
    return tile
