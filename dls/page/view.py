"""What the page is told, as JSON: the link, the server, and of sessions and prompts what the server says of them.

What a host says is checked here, field by field: texts have no control characters and a limited length, numbers are
numbers, and whatever else there is is left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dls.page.routes import PICTURE, ROOM

KEEPALIVE = b": still here\n\n"
"""A comment in the stream, by which both ends notice that the other has gone."""
KEEPALIVE_SECONDS = 15.0
"""Seconds of silence after which it is sent."""
SKEW_SECONDS = 2.0
"""Seconds by which two clocks may differ without anybody noticing."""
MAX_TEXT = 300
"""Most characters of a text."""
MAX_ITEMS = 60
"""Most items of a list."""

Fields = dict[str, Any]


@dataclass(frozen=True)
class LinkView:
    """The link to the server, times in seconds since 1970."""

    state: str
    """One of: open, lost, asleep, closed; and local, where the server runs on this computer."""
    since: float
    reason: str = ""
    next_try: float | None = None
    """When the next attempt to reconnect begins; None while one is under way."""
    waiting: int = 0
    """Number of requests that wait for the link."""


@dataclass(frozen=True)
class AddressView:
    """What to type into a viewer."""

    server: str
    port: int
    viewers: bool
    """Whether napari, 3D Slicer and MITK can use the port too."""
    secret: str = ""
    """Their API key; empty where none is asked for."""


def make_state(
    link: LinkView,
    address: AddressView,
    *,
    target: str,
    engine: str,
    overview: Fields | None,
    as_of: float,
    is_private: bool,
) -> Fields:
    """Return what the page shows. Whoever has no key learns nothing of sessions, prompts and the log, nor a secret.

    `overview` is what the server said last, at the time `as_of`; None before it has said anything.
    """
    known = overview or {}
    state: Fields = {
        "link": asdict(link),
        "target": target,
        "engine": {"name": engine, **known.get("engine", {})},
        "gpus": known.get("gpus", []),
        "private": is_private,
    }
    if is_private:
        names = ("sessions", "requests", "log")
        state |= {"address": asdict(address), "as_of": as_of, **{name: known.get(name, []) for name in names}}
    elif not address.secret:
        state |= {"address": asdict(address)}
    return state


def encode_event(state: Fields, now: float) -> bytes:
    """Return the state as one event of the stream; `now` is the time by which its other times are to be read."""
    return b"data: " + json.dumps({**state, "now": round(now, 2)}, separators=(",", ":")).encode() + b"\n\n"


def clean_overview(said: Mapping[str, Any], skew: float = 0.0) -> Fields:
    """Return what can be shown of a server's overview, its times moved by `skew` seconds to another clock."""

    def when(value: object) -> float | None:
        number = _number(value)
        return None if number is None else number + skew

    return {
        "engine": _fields(said.get("engine"), ENGINE),
        "gpus": _list(said.get("gpus"), lambda item: _fields(item, GPU)),
        "sessions": _list(said.get("sessions"), lambda item: _session(_fields(item, {**SESSION, "used": when}))),
        "requests": _list(said.get("requests"), lambda item: _fields(item, {**REQUEST, "at": when})),
        "log": _list(said.get("log"), _text),
    }


def measure_skew(now: float, said: object, before: float) -> float:
    """Return how far this clock is ahead of the host's, which said that time, where it was `before` at the last look.

    What the link's delay changes in it is no change; what is no time says nothing.
    """
    number = _number(said)
    skew = 0.0 if number is None else now - number
    return skew if abs(skew - before) > SKEW_SECONDS else before


def _session(fields: Fields) -> Fields:
    path = f"{ROOM}pictures/{fields.pop('name', '')}/{fields.pop('version', '')}"
    return {**fields, "picture": path if fields.get("has_picture") and PICTURE.fullmatch(path) else None}


def _fields(value: object, kinds: Mapping[str, Callable[[object], object]]) -> Fields:
    if not isinstance(value, dict):
        return {}
    return {name: kind(value[name]) for name, kind in kinds.items() if name in value}


def _list(value: object, kind: Callable[[object], object]) -> list[object]:
    return [kind(item) for item in value[:MAX_ITEMS]] if isinstance(value, list) else []


def _text(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text[:MAX_TEXT]
    )


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return value if is_number and math.isfinite(value) else None  # type: ignore[arg-type, return-value]


def _numbers(value: object) -> list[object]:
    return [_number(item) for item in value[:3]] if isinstance(value, list) else []


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


ENGINE = {"name": _text, "device": _text, "state": _text, "text": _text, "done": _number, "total": _number}
GPU = {"name": _text, "used": _number, "total": _number}
SESSION = {
    **{"id": _text, "name": _text, "version": _text, "model": _text},
    **{"size": _numbers, "spacing": _numbers, "prompts": _number, "awake": _flag, "has_picture": _flag},
}
REQUEST = {
    **{"kind": _text, "session": _text, "foreground": _flag},
    **{"status": _number, "seconds": _number, "engine": _number},
}
