"""Remembers the last requests that people made: what they did, when, and how long it took."""

from __future__ import annotations

import re
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

MAX_REQUESTS = 30
"""Number of requests that are remembered."""
ITK_SNAP = re.compile(r"(?:/v2)?/(process_(?:point|scribble|lasso)_interaction|upload_raw|reset_interactions)/([^/]+)")
OFFICIAL = re.compile(
    r"/(add_(?:bbox|point|scribble|lasso|initial_seg)_interaction|set_image|reset_interactions|undo|predict)"
)
KINDS = {
    **{f"process_{kind}_interaction": kind for kind in ("point", "scribble", "lasso")},
    **{f"add_{kind}_interaction": kind for kind in ("point", "scribble", "lasso")},
    **{"add_bbox_interaction": "box", "add_initial_seg_interaction": "mask", "undo": "undo", "predict": "predict"},
    **{"upload_raw": "image", "set_image": "image", "reset_interactions": "reset"},
}
"""What each route stands for."""
PROMPT_KINDS = ("point", "scribble", "lasso", "box", "mask", "predict")
"""Kinds that ask for a mask."""
ENGINE_KINDS = (*PROMPT_KINDS, "undo")
"""Kinds for which the engine computes."""

SecondsOf = Callable[[str], float]
"""Returns how long the engine took for a session's last prompt."""


class RecentRequests:
    """The last requests, the latest first."""

    def __init__(self, engine_seconds: SecondsOf) -> None:
        self._engine_seconds = engine_seconds
        self._requests: deque[dict[str, Any]] = deque(maxlen=MAX_REQUESTS)
        self._last_prompt: dict[str, Any] | None = None

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """Remember a request that was answered, if it is one of those that people make."""
        if (found := _identify(scope)) is None:
            return
        route, session = found
        kind = KINDS[route]
        foreground = QueryParams(scope.get("query_string", b"")).get("foreground")
        has_engine = status == 200 and kind in ENGINE_KINDS
        request = {
            "at": round(time.time(), 2),
            "kind": kind,
            "session": session[:8],
            "foreground": None if foreground is None else foreground.lower() in ("true", "1"),
            "status": status,
            "seconds": round(seconds, 6),
            "engine": round(self._engine_seconds(session), 6) if has_engine else None,
        }
        self._requests.appendleft(request)
        if status == 200 and kind in PROMPT_KINDS:
            self._last_prompt = request

    def list(self) -> list[dict[str, Any]]:
        """Return them as the page shows them."""
        return list(self._requests)

    def describe_last_prompt(self) -> dict[str, Any] | None:
        """Return the kind and the times, in seconds, of the last prompt that was answered; None before the first."""
        if (last := self._last_prompt) is None:
            return None
        return {
            "kind": last["kind"],
            "model_seconds": last["engine"],
            "seconds": last["seconds"],
            "ago": max(0.0, round(time.time() - last["at"], 1)),
        }


def _identify(scope: Scope) -> tuple[str, str] | None:
    """Return the route and the session of a request; None for one that is not remembered."""
    if found := ITK_SNAP.fullmatch(scope["path"]):
        return found[1], found[2]
    if found := OFFICIAL.fullmatch(scope["path"]):
        token = Headers(scope=scope).get("x-lease-token", "")
        try:
            return found[1], str(uuid.UUID(hex=token))
        except ValueError:
            return None
    return None
