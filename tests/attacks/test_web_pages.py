"""What a web page that somebody has open can reach, and what a request can write into the log."""

from __future__ import annotations

import socket

import pytest

from dls.server.http.access import Policy
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.processes import until

BROWSER = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
PAGE = "Referer: http://evil.example/"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 200),
        ((BROWSER,), 403),
        ((PAGE,), 403),
        ((BROWSER, PAGE), 403),
        ((BROWSER, "Sec-Fetch-Site: cross-site"), 403),
        ((BROWSER, "Sec-Fetch-Site: none"), 200),
        ((BROWSER, "Sec-Fetch-Site: same-origin"), 200),
    ],
)
def test_a_page_gets_nothing_from_an_open_server(headers: tuple[str, ...], status: int) -> None:
    """Row 18: browsers send no Sec-Fetch-Site to plain HTTP in the local network, so what looks like one is refused."""
    with serving(policy=Policy(open=True)) as server:
        assert ItkSnap(server.port).get("/start_session", headers).status == status


def test_a_browser_with_the_secret_gets_in() -> None:
    """Row 18: who types the secret into a browser is asked for it, and is not taken for a web page."""
    with serving(policy=Policy(secret="s3cret")) as server:
        assert ItkSnap(server.port).get("/status", (BROWSER,)).status == 401
        assert ItkSnap(server.port, "snap:s3cret@127.0.0.1").get("/status", (BROWSER,)).status == 200


def test_a_path_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Row 14: line ends and escape sequences in a request's path reach the log as question marks."""
    with serving() as server, caplog.at_level("INFO", "dls.server"):
        path = b"/%0AError:%20forged%1b]0;title%07%C2%9b31m%E2%80%AEx"
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 404 ")
        until(lambda: "forged" in caplog.text)
    [line] = [message for message in caplog.messages if "forged" in message]
    assert line.isprintable()
