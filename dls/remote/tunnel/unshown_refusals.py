"""Refusals that ITK-SNAP does not show: of a refused prompt it says "Failed to send", and nothing of the reason."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable

from dls.contract import NO_IMAGE, UNKNOWN_SESSION

MAX_SESSIONS = 100
"""Number of sessions after which nothing more is shown: every user of this computer may use the local port."""

_PROMPT = re.compile(rb"(?:/v2)?/process_(?:point|scribble|lasso)_interaction/([^/]+)")
_SENTENCES = {404: UNKNOWN_SESSION, 409: NO_IMAGE}
"""The sentences that are shown, by status; what a host says in other words is not."""


class UnshownRefusals:
    """Passes on why prompts were refused, once for each session."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._shown: set[bytes] = set()
        self._lock = threading.Lock()

    def add(self, target: bytes, status: int, body: bytes) -> None:
        """Show the refusal with which a request was answered, where only the user can do something about it."""
        sentence = find_refusal(target, status, body)
        if sentence is None or not self._is_new(find_session(target)):
            return
        self._show(f"A click in ITK-SNAP was refused. {sentence}")

    def _is_new(self, session: bytes) -> bool:
        with self._lock:
            if session in self._shown or len(self._shown) >= MAX_SESSIONS:
                return False
            self._shown.add(session)
            return True


def find_session(target: bytes) -> bytes:
    """Return the session that a prompt is for; b"" for another request."""
    match = _PROMPT.fullmatch(target.partition(b"?")[0])
    return match[1] if match else b""


def find_refusal(target: bytes, status: int, body: bytes) -> str | None:
    """Return the sentence with which a prompt was refused; None for another request or another answer."""
    sentence = _SENTENCES.get(status)
    if sentence is None or not find_session(target) or len(body) > 4096:
        return None
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return sentence if fields in ({"error": sentence}, {"error": sentence, "detail": sentence}) else None
