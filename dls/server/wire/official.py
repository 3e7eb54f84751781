"""Reads what the requests of official clients say: JSON to the fields of operations.

Where the library's own server (nninteractive 2.6.0) refuses the same, the sentences are that server's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from dls.errors import BadRequest
from dls.server.operations import (
    ADD_BBOX,
    ADD_INITIAL_SEG,
    ADD_LASSO,
    ADD_POINT,
    ADD_SCRIBBLE,
    PREDICT,
    RESET,
    SET_DO_AUTOZOOM,
    SET_TARGET_BUFFER,
    UNDO,
)
from dls.server.wire.nnia import Header

BUFFER_KINDS = "biu"
"""Kinds of dtype that a target buffer may have."""


def parse_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object; raises BadRequest."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"Bad {where}: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest(f"Bad {where}: it is no JSON object.")
    return value


def parse_fields(operation: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the operation's fields, complete and of the right types; raises BadRequest."""
    return PARSERS[operation](fields)


def _parse_target_buffer(fields: dict[str, Any]) -> dict[str, Any]:
    for name in ("shape", "dtype"):
        if name not in fields:
            raise BadRequest(f"missing required field: {name}")
    shape = fields["shape"]
    if not isinstance(shape, list):
        raise BadRequest("shape must be a list of positive integers")
    if len(shape) != 3:
        raise BadRequest("shape must be 3D")
    if not all(isinstance(side, int) and not isinstance(side, bool) for side in shape):
        raise BadRequest("shape must contain only integers")
    if min(shape) <= 0:
        raise BadRequest("shape dimensions must be positive")
    return {"shape": shape, "dtype": _parse_dtype(fields["dtype"])}


def _parse_dtype(name: Any) -> str:
    try:
        if not isinstance(name, str):
            raise TypeError
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        raise BadRequest(f"invalid dtype: {str(name)[:80]!r}") from None
    if dtype.kind not in BUFFER_KINDS:
        raise BadRequest(f"unsupported dtype {dtype}: target buffer must be bool or an integer type")
    return dtype.name


def _parse_autozoom(fields: dict[str, Any]) -> dict[str, Any]:
    return {"do_autozoom": _flag(fields, "do_autozoom")}


def _parse_predict(fields: dict[str, Any]) -> dict[str, Any]:
    return {"force_full_refine": _flag(fields, "force_full_refine", False)}


def _parse_nothing(fields: dict[str, Any]) -> dict[str, Any]:
    return {}


def _parse_bbox(fields: dict[str, Any]) -> dict[str, Any]:
    box = _need(fields, "bbox_coords")
    if not (_is_list(box, 3) and all(_is_list(pair, 2) and all(map(_is_number, pair)) for pair in box)):
        raise BadRequest("bbox_coords must be three pairs of numbers.")
    return {"bbox_coords": box, **_parse_prompt(fields)}


def _parse_point(fields: dict[str, Any]) -> dict[str, Any]:
    at = _need(fields, "coordinates")
    if not (_is_list(at, 3) and all(map(_is_number, at))):
        raise BadRequest("coordinates must be three numbers.")
    return {"coordinates": at, **_parse_prompt(fields)}


def _parse_mask(fields: dict[str, Any]) -> dict[str, Any]:
    box = fields.get("interaction_bbox")
    if box is not None:
        if not (isinstance(box, list) and all(_is_list(pair, 2) and all(map(_is_int, pair)) for pair in box)):
            raise BadRequest("interaction_bbox must be three pairs of whole numbers.")
        if len(box) != 3:
            raise BadRequest(f"interaction_bbox must have 3 dimensions, got {len(box)}")
        if not all(high > low for low, high in box):
            raise BadRequest("each dimension of interaction_bbox must have positive size")
    return {"interaction_bbox": box, **_parse_prompt(fields)}


def _parse_prompt(fields: dict[str, Any]) -> dict[str, Any]:
    return {"include_interaction": _flag(fields, "include_interaction"), **_parse_switches(fields, True)}


def _parse_initial_seg(fields: dict[str, Any]) -> dict[str, Any]:
    return _parse_switches(fields, False)


def _parse_switches(fields: dict[str, Any], run: bool) -> dict[str, Any]:
    name = "override_capability_checks"
    return {"run_prediction": _flag(fields, "run_prediction", run), name: _flag(fields, name, False)}


PARSERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    SET_TARGET_BUFFER: _parse_target_buffer,
    SET_DO_AUTOZOOM: _parse_autozoom,
    RESET: _parse_nothing,
    UNDO: _parse_nothing,
    PREDICT: _parse_predict,
    ADD_BBOX: _parse_bbox,
    ADD_POINT: _parse_point,
    ADD_SCRIBBLE: _parse_mask,
    ADD_LASSO: _parse_mask,
    ADD_INITIAL_SEG: _parse_initial_seg,
}
"""By operation: the function that reads its fields."""


def _need(fields: dict[str, Any], name: str) -> Any:
    if name not in fields:
        raise BadRequest(f"missing required field: {name}")
    return fields[name]


def _flag(fields: dict[str, Any], name: str, default: bool | None = None) -> bool:
    value = _need(fields, name) if default is None else fields.get(name, default)
    if not isinstance(value, bool) and value not in (0, 1):
        raise BadRequest(f"{name} must be true or false.")
    return bool(value)


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, list) and len(value) == length


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 31


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1 << 31  # NaN is not


def check_image(header: Header) -> None:
    """Raise BadRequest for an array that is no image of one channel."""
    if len(header.shape) != 4:
        raise BadRequest(f"expected a 4d image as input, got {len(header.shape)}d. Shape {header.shape}")
    if header.shape[0] != 1:
        raise BadRequest(f"The image has {header.shape[0]} channels; the model takes one.")


def check_mask(operation: str, fields: dict[str, Any], header: Header, image: tuple[int, int, int]) -> None:
    """Raise BadRequest for a mask that has not the shape of the image, or of the box that it is for."""
    shape = list(header.shape)
    if operation == ADD_INITIAL_SEG:
        if header.shape != image:
            raise BadRequest(
                f"Given initial seg must match input image shape. Input image was: {image}, given: {header.shape}"
            )
        return
    box = fields["interaction_bbox"] or [[0, side] for side in image]
    size = [high - low for low, high in box]
    if shape != size:
        raise BadRequest(f"image shape {shape} must match interaction_bbox size {size}")
    if not all(low >= 0 and high <= side for (low, high), side in zip(box, image, strict=True)):
        raise BadRequest(f"interaction_bbox {box} exceeds original image bounds {list(image)}")
