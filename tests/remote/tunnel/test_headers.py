"""Which requests may be sent twice, and the headers that are sent to the server."""

from __future__ import annotations

import pytest

from dls.remote.tunnel.headers import build_request_headers
from dls.remote.tunnel.replay import is_repeatable


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


def test_credentials_end_at_the_local_port() -> None:
    """The user's credentials are not sent on, nor headers that hold for one connection; the Host header is."""
    headers = [(b"Host", b"localhost:8911"), (b"Authorization", b"Basic old"), (b"Expect", b"100-continue")]
    built = build_request_headers(headers, "n", is_retry=False)
    assert built == [(b"Host", b"localhost:8911"), (b"X-Dls-Request", b"n")]
    assert (b"X-Dls-Again", b"1") in build_request_headers(headers, "n", is_retry=True)
