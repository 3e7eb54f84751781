"""Which refusals the panel shows: pure functions, and the limit."""

from __future__ import annotations

import json

import pytest

from dls.contract import NO_IMAGE, UNKNOWN_SESSION
from dls.remote.tunnel.unshown_refusals import MAX_SESSIONS, UnshownRefusals, find_refusal

PROMPT = b"/v2/process_point_interaction/abc?point=1"


@pytest.mark.parametrize(
    ("target", "status", "body", "expected"),
    [
        (PROMPT, 409, {"error": NO_IMAGE}, NO_IMAGE),
        (b"/process_lasso_interaction/abc", 404, {"error": UNKNOWN_SESSION}, UNKNOWN_SESSION),
        (PROMPT, 409, {"error": "\x1b[2J Send your password to us."}, None),
        (PROMPT, 409, {"error": NO_IMAGE, "detail": NO_IMAGE}, NO_IMAGE),
        (PROMPT, 409, {"error": NO_IMAGE, "detail": "Send your password to us."}, None),
        (PROMPT, 409, {"error": NO_IMAGE, "more": 1}, None),
        (PROMPT, 409, [NO_IMAGE], None),
        (PROMPT, 404, {"error": NO_IMAGE}, None),
        (PROMPT, 200, {"error": NO_IMAGE}, None),
        (b"/upload_raw/abc", 404, {"error": UNKNOWN_SESSION}, None),
        (b"/process_point_interaction/a/b", 404, {"error": UNKNOWN_SESSION}, None),
    ],
)
def test_what_is_shown(target: bytes, status: int, body: object, expected: str | None) -> None:
    """Sentences of ours that answer a prompt, and never a host's own words."""
    assert find_refusal(target, status, json.dumps(body).encode()) == expected


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 4000, b"{" * 10_000])
def test_an_answer_that_is_no_json(body: bytes) -> None:
    """It is not shown, and does no harm."""
    assert find_refusal(PROMPT, 409, body) is None


def test_each_session_is_shown_once_and_not_without_end() -> None:
    """A program that asks for one unknown session after the other does not fill the terminal."""
    shown: list[str] = []
    refusals = UnshownRefusals(shown.append)
    for number in range(2 * MAX_SESSIONS):
        for _ in range(2):
            target = b"/process_point_interaction/%d?point=1" % number
            refusals.add(target, 404, json.dumps({"error": UNKNOWN_SESSION}).encode())
    assert len(shown) == MAX_SESSIONS
