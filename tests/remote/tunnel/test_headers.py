"""Which requests may be sent twice, and the headers that are sent to the server."""

from __future__ import annotations

import pytest

from dls.remote.tunnel.headers import build_request_headers, is_repeatable


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        (b"GET", b"/status", True),
        (b"POST", b"/status", False),
        (b"GET", b"/v2/start_session/nnInteractive", True),
        (b"POST", b"/upload_raw/1-2?filename=x", True),
        (b"POST", b"/process_lasso_interaction/1-2?foreground=true", True),
        (b"GET", b"/v2/process_point_interaction/1-2?point=1", True),
        (b"GET", b"/end_session/1-2", True),
        (b"POST", b"/add_point", False),
        (b"POST", b"/v2/upload_raw/1-2/3", False),
    ],
)
def test_which_requests_are_repeatable(method: bytes, target: bytes, expected: bool) -> None:
    """A request is repeatable when it changes nothing, or when the server knows it by its name."""
    assert is_repeatable(method, target) is expected


def test_credentials_are_sent_for_local_names_only() -> None:
    """A page that calls this computer by its own host name gets no credentials; those of the user are replaced."""
    for host, is_sent in (
        (b"localhost:8911", True),
        (b"127.0.0.1", True),
        (b"[::1]:1", True),
        (b"evil.example", False),
    ):
        headers = [(b"Host", host), (b"Authorization", b"Basic old"), (b"Expect", b"100-continue")]
        built = dict(build_request_headers(headers, "n", "new", is_retry=False))
        assert built[b"Authorization"] == (b"Basic new" if is_sent else b"Basic old")
        assert b"Expect" not in built and built[b"X-Dls-Request"] == b"n"
