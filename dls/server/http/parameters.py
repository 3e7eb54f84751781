"""Parses what a request carries in its query and headers; raises BadRequest for values that make no sense."""

from __future__ import annotations

import re

from starlette.datastructures import Headers, QueryParams

from dls.contract import IMAGE_HEADER, OFFSET_HEADER, REQUEST_HEADER, RETRY_HEADER
from dls.errors import BadRequest
from dls.server.sessions.copies import NAME
from dls.server.sessions.images import SentImage

PART_NAME = re.compile(r"[0-9a-f]{1,32}(-[0-9]{1,18})?")
"""Format of the names of requests whose uploads can go on; nothing else is ever used as part of a path."""


def parse_point(query: QueryParams) -> tuple[int, int, int]:
    """Return a click's voxel (z, y, x), which is sent as `point` three times (v2) or as `x`, `y` and `z` (v1)."""
    values = query.getlist("point") or [query.get(axis, "") for axis in "xyz"]
    if len(values) != 3:
        raise BadRequest("A point of this model has three coordinates: x, y and z.")
    try:
        x, y, z = (int(value[:12]) for value in values)
    except ValueError:
        raise BadRequest("The point's coordinates must be whole numbers.") from None
    return z, y, x


def parse_foreground(query: QueryParams) -> bool:
    """Return whether a prompt marks the object; a request that does not say so marks the background."""
    value = query.get("foreground", "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise BadRequest("foreground must be true or false.")
    return value in ("true", "1")


def parse_request_id(headers: Headers) -> str:
    """Return the name by which a request is recognised when it is sent again; empty if it has none."""
    return headers.get(REQUEST_HEADER, "")[:64]


def is_retry(headers: Headers) -> bool:
    """Return whether the request is sent again because no answer came."""
    return bool(headers.get(RETRY_HEADER))


def parse_content_length(headers: Headers) -> int:
    """Return the length of the body in bytes; 0 if the request does not say a sensible one."""
    value = headers.get("content-length", "")
    return int(value) if value.isdecimal() and len(value) < 16 else 0


def parse_sent_image(headers: Headers, *, is_owner: bool) -> SentImage:
    """Return what a request sends of an image; only the server's own user may leave something out.

    Raises BadRequest for headers that make no sense.
    """
    length = parse_content_length(headers)
    if not is_owner:
        return SentImage(length)
    name, copy = parse_request_id(headers), headers.get(IMAGE_HEADER, "")
    offset = headers.get(OFFSET_HEADER, "0")
    if copy and not NAME.fullmatch(copy):
        raise BadRequest(f"{IMAGE_HEADER} names no image.")
    if not (offset.isdecimal() and len(offset) < 16):
        raise BadRequest(f"{OFFSET_HEADER} must be a whole number.")
    return SentImage(length, name if PART_NAME.fullmatch(name) else "", int(offset), copy)
