"""What other web pages, other users of the laptop and a host can do to the page, and where it is not served at all."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dls.demo import sshd
from dls.page.view import AddressView
from dls.remote.tunnel.page import PageFacts
from dls.server.http.access import Policy
from dls.server.http.page import Page
from dls.server.options import ServeOptions
from dls.server.sessions.folders import Folders
from dls.server.sessions.store import SessionStore
from tests.support.connecting import connected
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.page_client import HTML, PageClient
from tests.support.processes import free_port
from tests.support.proxied_server import proxied

FOREIGN = [
    {"Host": "rebound.example"},
    {"Host": "rebound.example:8911"},
    {"Host": "localhost:1"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]
BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}


@pytest.fixture(params=["connect", "serve"])
def client(request: pytest.FixtureRequest, short_folder: Path) -> Iterator[PageClient]:
    """The page at a local port, or of a server that a user started; with one session in it."""
    store = SessionStore(Folders(short_folder / "own" / "home")).open()
    if request.param == "connect":
        with (
            serving(socket=str(short_folder / "s"), store=store) as live,
            proxied(live.socket, page=PageFacts("ann@gpuhost")) as server,
        ):
            begin(server.port)
            yield PageClient.at(server.page_url)
        return
    port = free_port()
    page = Page(port, AddressView("localhost", port, False), "gpuhost")
    with serving(store=store, page=page, port=port):
        begin(port)
        yield PageClient.at(page.url)
        page.end()


def begin(port: int) -> None:
    snap = ItkSnap(port)
    snap.start()
    assert snap.upload(np.zeros((3, 4, 5), np.float32)).status == 200


def session_of(client: PageClient) -> dict[str, Any]:
    session: dict[str, Any] = client.wait_for(lambda state: state["sessions"])["sessions"][0]
    return session


@pytest.mark.parametrize("headers", FOREIGN)
def test_another_web_page_gets_nothing(client: PageClient, headers: dict[str, str]) -> None:
    """By a name that leads to this computer, or from an origin of its own, each address is refused, key or not, and
    no answer allows another origin to read it."""
    picture = session_of(client)["picture"]
    for key in (client.key, ""):
        for path in ("/", "/dls/page/page.js", "/dls/page/events", picture):
            answer = PageClient(client.port, key).get(path, {**HTML, **headers})
            assert answer.status == 403
            assert not any(name.startswith("access-control") for name in answer.headers)
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_no_preflight_is_allowed(client: PageClient) -> None:
    """A browser that asks whether another page may send the key is refused."""
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Headers": "x-dls-page-key"}
    answer = client.get("/dls/page/events", headers, "OPTIONS")
    assert answer.status in (403, 405) and "access-control-allow-origin" not in answer.headers


def test_another_user_of_this_computer(client: PageClient) -> None:
    """Without the key there is no picture, no session, no request and no log; a guessed key is refused."""
    picture = session_of(client)["picture"]
    stranger = PageClient(client.port)
    assert stranger.get().status == 200
    state = stranger.wait_for(lambda state: state["engine"].get("state") == "ready")
    assert not state["private"] and not {"sessions", "requests", "log"} & set(state)
    assert stranger.get(picture).status == 403
    for key in ("x", client.key[:-1], client.key.upper()):
        guess = PageClient(client.port, key)
        assert guess.get(picture).status == guess.get("/dls/page/events").status == 403
    assert client.get(picture).status == 200


def test_a_picture_is_kept_nowhere(client: PageClient) -> None:
    """No cache may store the page, its stream or its pictures."""
    for path in ("/", session_of(client)["picture"]):
        assert client.get(path).headers["cache-control"] == "no-store"


def test_the_servers_own_addresses_stay_out_of_reach(client: PageClient) -> None:
    """The key opens the page's addresses alone: neither it nor the page's room leads to the server's own."""
    for path in (
        "/dls/overview",
        "/dls/pictures/0123456789abcdef/1-0",
        "/dls/images/" + "0" * 64 + "-1",
        "/dls/page/../overview",
        "/dls/page/%2e%2e/overview",
        "//dls/overview",
        "/%64ls/overview",
        "/dls%2foverview",
        "/dls/page/../../dls/overview",
    ):
        assert client.get(path).status == 404, path
    with socket.create_connection(("127.0.0.1", client.port), 30) as raw:
        raw.sendall(b"GET http://localhost/dls/overview HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert raw.recv(100).split()[1] in (b"400", b"404")


def test_a_browser_of_any_make(client: PageClient) -> None:
    """Browsers that send no Sec-Fetch-Site over plain HTTP get the page too, but nothing else of the server at
    `dls serve`."""
    assert client.get("/", {**HTML, **BROWSER}).status == 200
    assert client.get("/dls/page/page.css", BROWSER).status == 200


@pytest.mark.parametrize(
    ("options", "is_served"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"secret": "s"}, True),
        ({"page": False}, False),
        ({"open": True}, False),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "secret": "s"}, False),
        ({"host": "192.0.2.1", "open": True}, False),
        ({"host": None, "uds": Path("s")}, False),
    ],
)
def test_which_server_has_a_page(options: dict[str, Any], is_served: bool) -> None:
    """Only one that no other computer reaches, and whose user did not turn it off."""
    assert ServeOptions(**options).serves_page is is_served


@pytest.mark.parametrize("policy", [Policy(), Policy(open=True), Policy(secret="s3cret")])
def test_a_server_without_a_page(policy: Policy) -> None:
    """Neither `/` nor the page's addresses are there; the answers are those of an address that is not there."""
    with serving(policy=policy) as live:
        client = PageClient(live.port)
        for path in ("/", "/dls/page/page.js", "/dls/page/events"):
            answer = client.get(path, {**HTML, "Authorization": "Bearer s3cret"})
            assert answer.status == 404 and "nothing at that address" in answer.error


def test_a_local_port_without_a_page(host: sshd.Server, clean: str) -> None:
    """`--no-page`: the local port answers as it did before there was a page; the page of another run is none of its."""
    with connected(host, clean, page=False)[0] as session:
        assert session.page_url is None
        client = PageClient(session.port)
        assert client.get().status == 404
        for path in ("/dls/page/events", "/dls/page/page.js"):
            assert client.get(path).status == 404
        assert ItkSnap(session.port).start()


def test_a_secret_at_dls_serve(short_folder: Path) -> None:
    """With `--secret` the page asks for it, in the way that browsers know; other web pages are not even asked."""
    port = free_port()
    page = Page(port, AddressView("snap:s3cret@localhost", port, False, "s3cret"), "gpuhost")
    with serving(policy=Policy(secret="s3cret"), page=page, port=port):
        assert page.url == f"http://localhost:{port}/"
        client = PageClient(port)
        for path in ("/", "/dls/page/page.css", "/dls/page/events"):
            refused = client.get(path)
            assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Basic ")
            assert client.get(path, {**HTML, "Host": "rebound.example"}).status == 403
        with client.events({"Authorization": "Bearer s3cret"}) as states:
            assert next(states)["private"]
        page.end()


NONSENSE = [
    b"[]",
    b"not json",
    b'{"sessions": [[[[1]]]], "engine": 5, "log": {"a": 1}, "now": "x"}',
    b"[" * 100000,
    json.dumps({"log": ["\x1b]52;c;x\x07"], "engine": {"text": "<img src=x onerror=alert(1)>"}}).encode(),
]


@pytest.mark.parametrize("body", NONSENSE)
def test_a_host_that_says_nonsense(body: bytes) -> None:
    """The page goes on with what can be shown, and no control character reaches it."""
    with (
        saying(body) as port,
        proxied(port, page=PageFacts("ann@gpuhost")) as server,
        PageClient.at(server.page_url).events() as states,
    ):
        first = next(states)
        assert first["link"]["state"] == "open" and first["sessions"] == []
        if b"onerror" in body:
            shown = next(state for state in states if state["log"])
            assert shown["log"] == ["\ufffd]52;c;x\ufffd"]


@pytest.mark.parametrize("body", [b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n" + bytes(2 << 20), b""])
def test_a_picture_that_is_none(body: bytes) -> None:
    """What a host sends in the place of a picture is passed on if it is a PNG, and never a large one."""
    with saying(body) as port, proxied(port, page=PageFacts("ann@gpuhost")) as server:
        client = PageClient.at(server.page_url)
        answer = client.get("/dls/page/pictures/0123456789abcdef/1-1")
        assert (answer.status, answer.body) == (204, b"") and "content-type" not in answer.headers


class saying:
    """A host that answers everything with the same body, as HTML."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(self._body)
        try:
            while True:
                client, _ = self._listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(head + self._body)
        except OSError:
            pass

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
