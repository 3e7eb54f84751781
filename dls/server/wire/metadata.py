"""Parses the `metadata` part of an upload: JSON to geometry."""

from __future__ import annotations

import json
import math
from typing import Any

from dls.errors import BadRequest
from dls.server.volume import Geometry

MAX_SIDE = 65_535
"""Maximum side of an image in voxels: no scanner produces more, and ITK-SNAP's own file formats end there."""


def parse(text: bytes) -> Geometry:
    """Parse the metadata that ITK-SNAP sends with an image, a scribble and a lasso; raises BadRequest.

    The metadata's axis order is (x, y, z), the geometry's is (z, y, x). Spacing, origin and direction may be missing.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("The metadata of the image is not valid JSON.") from None
    if not isinstance(fields, dict):
        raise BadRequest("The metadata of the image is not a JSON object.")
    component_type = fields.get("component_type", "float32")
    if component_type not in ("float32", "float"):
        raise BadRequest(f"The image's numbers must be float32, not {str(component_type)[:40]!r}.")
    x, y, z = _parse_sides(fields.get("dimensions"))
    sx, sy, sz = _parse_numbers(fields, "spacing", (1.0,) * 3)
    if min(sx, sy, sz) <= 0:
        raise BadRequest("The image's spacing must be greater than zero.")
    ox, oy, oz = _parse_numbers(fields, "origin", (0.0,) * 3)
    direction = _parse_numbers(fields, "direction", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    return Geometry((z, y, x), (sz, sy, sx), (oz, oy, ox), direction, _parse_components(fields))


def _parse_sides(value: Any) -> tuple[int, int, int]:
    if not isinstance(value, list) or len(value) != 3 or not all(_is_integer(side) for side in value):
        raise BadRequest("The image's dimensions must be three whole numbers, [x, y, z].")
    x, y, z = value
    for side in (x, y, z):
        if not 1 <= side <= MAX_SIDE:
            raise BadRequest(f"The image's sides must be from 1 to {MAX_SIDE} voxels long.")
    return x, y, z


def _parse_components(fields: dict[str, Any]) -> int:
    value = fields.get("components_per_pixel", 1)
    if not _is_integer(value) or not 1 <= value <= 1024:
        raise BadRequest("The image's components per pixel must be a whole number from 1 on.")
    return int(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parse_numbers(fields: dict[str, Any], name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    value = fields.get(name)
    if value is None:
        return default
    is_list = isinstance(value, list) and len(value) == len(default)
    if not is_list or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in value):
        raise BadRequest(f"The image's {name} must be {len(default)} numbers.")
    try:
        numbers = tuple(float(n) for n in value)
    except OverflowError:
        numbers = (math.inf,)
    if not all(math.isfinite(n) for n in numbers):
        raise BadRequest(f"The image's {name} must be finite numbers.")
    return numbers
