"""How `/status` is answered at the local port: a poll that fails would make ITK-SNAP's next click fail unsent."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from dls.remote.tunnel.link import (
    Closed,
    ConnectionLost,
    Failed,
    GaveUp,
    LinkEvent,
    ServerLost,
    ServerStopped,
)
from tests.support.processes import until
from tests.support.proxied_server import LocalEndpoint, ProxiedServer, proxied

OK = {"status": "ok", "version": "0.1.6"}


@pytest.fixture
def silent() -> Iterator[ProxiedServer]:
    """A proxy in front of a server that accepts connections and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    with contextlib.closing(listener), proxied(listener.getsockname()[1]) as server:
        yield server


@pytest.mark.parametrize(
    "event",
    [
        ConnectionLost("The connection was lost."),
        ServerLost("The server has ended."),
        Failed("The host can't be reached."),
        ServerStopped(LocalEndpoint(0), "The server was ended."),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_poll_succeeds_while_the_link_is_restored(proxied_server: ProxiedServer, event: LinkEvent) -> None:
    """It gets the server's answer, byte for byte, and asks for nothing that would start a server."""
    until(lambda: proxied_server.snap.get("/status").json == OK)  # the engine is loaded
    before = proxied_server.snap.get("/status")
    proxied_server.link.handle(event)
    answer = proxied_server.snap.get("/status")
    assert (answer.status, answer.body) == (200, before.body) == (200, b'{"status":"ok","version":"0.1.6"}')
    assert answer.headers["content-type"] == before.headers["content-type"]
    assert not proxied_server.link.demand


@pytest.mark.parametrize("event", [GaveUp("Nobody can log in."), Closed()], ids=lambda event: type(event).__name__)
def test_a_poll_fails_where_there_is_no_hope(proxied_server: ProxiedServer, event: LinkEvent) -> None:
    """A click would be refused at once too."""
    proxied_server.link.handle(event)
    assert proxied_server.snap.get("/status").status == 503
    refused = proxied_server.snap.get("/v2/models")
    assert refused.status == 503 and "Start dls connect again" in refused.error


def test_a_server_that_says_nothing(silent: ProxiedServer) -> None:
    """A poll is answered all the same, and the supervisor is asked to check."""
    assert silent.snap.get("/status").json == OK
    assert silent.link.wake.is_set()


def test_many_polls_of_a_server_that_says_nothing(silent: ProxiedServer) -> None:
    """Each of them is answered, and only some of them are sent on."""
    socks = [silent.connect() for _ in range(40)]
    for sock in socks:
        sock.sendall(b"GET /status HTTP/1.0\r\n\r\n")
    for sock in socks:
        with sock, sock.makefile("rb") as answer:
            assert answer.read().endswith(b'{"status":"ok","version":"0.1.6"}')
    assert len(silent.endpoint.channels) < 40


@pytest.mark.parametrize("cut", [0, 20, 150])
def test_a_poll_whose_answer_is_cut(proxied_server: ProxiedServer, cut: int) -> None:
    """It gets our own answer at once: the click that follows is what is sent again."""
    proxied_server.endpoint.cuts = [cut]
    assert proxied_server.snap.get("/status").json == OK
    assert len(proxied_server.endpoint.channels) == 1
    assert proxied_server.link.wake.is_set()


def test_a_server_that_takes_no_connection(proxied_server: ProxiedServer) -> None:
    """A poll succeeds before the supervisor has noticed anything, as a click would be held."""
    proxied_server.endpoint.is_up = False
    assert proxied_server.snap.get("/status").json == OK


def test_the_body_of_a_poll_is_not_read(proxied_server: ProxiedServer) -> None:
    """A client that announces a body and does not send it is answered all the same."""
    with proxied_server.connect() as sock, sock.makefile("rb") as answer:
        sock.sendall(b"GET /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        assert answer.read().endswith(b'"version":"0.1.6"}')
