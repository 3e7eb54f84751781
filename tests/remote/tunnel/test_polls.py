"""How polls are answered at the local port: one that fails would make ITK-SNAP's next click fail unsent, or end an
official client's heartbeats.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from dls.remote.tunnel.link import Closed, ConnectionLost, Failed, GaveUp, LinkEvent, ServerLost, ServerStopped
from tests.support.processes import until
from tests.support.proxied_server import LocalEndpoint, ProxiedServer, proxied
from tests.support.scripted_server import Answer, ScriptedServer, say, scripted

LOSSES: list[LinkEvent] = [
    ConnectionLost("The connection was lost."),
    ServerLost("The server has ended."),
    Failed("The host can't be reached."),
    ServerStopped(LocalEndpoint(0), "The server was ended."),
]
LEASE = "a" * 32
OK = {"status": "ok", "version": "0.1.6"}


@pytest.fixture
def silent() -> Iterator[ProxiedServer]:
    """A proxy in front of a server that accepts connections and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    with contextlib.closing(listener), proxied(listener.getsockname()[1]) as server:
        yield server


@pytest.mark.parametrize("event", LOSSES, ids=lambda event: type(event).__name__)
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


def ask(server: ProxiedServer, path: str, lease: str = LEASE, body: bytes = b"{}") -> tuple[int, object]:
    """Send a poll of an official client, and return the status and the fields of the answer."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    method = "POST" if path == "/heartbeat" else "GET"
    client.request(method, path, body if method == "POST" else None, {"X-Lease-Token": lease})
    response = client.getresponse()
    fields = json.loads(response.read())
    client.close()
    return response.status, fields


@pytest.fixture
def script() -> Iterator[ScriptedServer]:
    """A server that knows one lease."""
    with scripted(lambda asked: say(200, {"remaining_seconds": 123.5, "idle_timeout_seconds": 700.0})) as server:
        yield server


@pytest.fixture
def local(script: ScriptedServer) -> Iterator[ProxiedServer]:
    """A local port in front of it, which waits for its answers on a slow machine too."""
    with proxied(script.port, poll_seconds=20) as server:
        yield server


def test_a_heartbeat_is_the_servers(local: ProxiedServer, script: ScriptedServer) -> None:
    """It reaches the server with its body and its lease, and the answer comes back, a refusal too."""
    assert ask(local, "/heartbeat") == (200, {"remaining_seconds": 123.5, "idle_timeout_seconds": 700.0})
    [asked] = script.asked
    assert (asked.method, asked.body, asked.headers["X-Lease-Token"]) == ("POST", b"{}", LEASE)
    refusal = {"detail": "lease expired or unknown"}
    script.answer = lambda asked: say(410, refusal)
    for path in ("/heartbeat", "/lease_status"):
        assert ask(local, path) == (410, refusal)
    local.link.handle(LOSSES[0])
    assert ask(local, "/heartbeat") == (200, {"remaining_seconds": 600.0})


@pytest.mark.parametrize("event", LOSSES, ids=lambda event: type(event).__name__)
def test_a_heartbeat_succeeds_while_the_link_is_restored(local: ProxiedServer, event: LinkEvent) -> None:
    """It gets what the server said last of the lease, or what is usual, and starts no server."""
    assert ask(local, "/lease_status")[0] == 200
    local.link.handle(event)
    assert ask(local, "/heartbeat") == (200, {"remaining_seconds": 123.5})
    assert ask(local, "/lease_status") == (200, {"remaining_seconds": 123.5, "idle_timeout_seconds": 700.0})
    assert ask(local, "/heartbeat", "b" * 32) == (200, {"remaining_seconds": 600.0})
    assert ask(local, "/healthz") == (200, {"ok": True})
    assert not local.link.demand


@pytest.mark.parametrize("event", [GaveUp("Nobody can log in."), Closed()], ids=lambda event: type(event).__name__)
def test_a_heartbeat_fails_where_there_is_no_hope(local: ProxiedServer, event: GaveUp | Closed) -> None:
    """But not in a way that ends a client's heartbeats, which go on after 502."""
    local.link.handle(event)
    for path in ("/heartbeat", "/healthz", "/lease_status"):
        status, fields = ask(local, path)
        assert status == 502 and fields == {"error": event.reason, "detail": event.reason}


@pytest.mark.parametrize(
    "answer",
    [
        say(503, {"detail": "server is at capacity"}),
        say(500, {}),
        (200, {}, b"<html>"),
        (200, {}, b""),
        say(200, {"remaining_seconds": "soon"}),
        say(200, []),
        (200, {}, b"x" * 70_000),
    ],
)
def test_an_answer_that_would_end_the_heartbeats(local: ProxiedServer, script: ScriptedServer, answer: Answer) -> None:
    """A server in trouble is not the end of a lease."""
    script.answer = lambda asked: answer
    assert ask(local, "/heartbeat") == (200, {"remaining_seconds": 600.0})


def test_heartbeats_of_a_server_that_says_nothing(silent: ProxiedServer) -> None:
    """They are answered all the same, and the supervisor is asked to check."""
    assert ask(silent, "/heartbeat") == (200, {"remaining_seconds": 600.0})
    assert ask(silent, "/healthz") == (200, {"ok": True})
    assert silent.link.wake.is_set()


def test_the_body_of_a_heartbeat_is_read(local: ProxiedServer) -> None:
    """It may come late and in chunks, and the next request follows it on the same connection."""
    head = b"POST /heartbeat HTTP/1.1\r\nHost: localhost\r\n"
    with local.connect() as sock:
        for pieces in (
            [b"Content-Length: 2\r\n\r\n{", b"}"],
            [b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}", b"\r\n0\r\n\r\n"],
        ):
            sock.sendall(head + pieces[0])
            sock.settimeout(0.1)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(30)
            sock.sendall(pieces[1])
            response = http.client.HTTPResponse(sock)
            response.begin()
            assert response.status == 200 and json.loads(response.read())["remaining_seconds"] == 123.5


def test_a_heartbeat_that_is_too_long(local: ProxiedServer, script: ScriptedServer) -> None:
    """It is refused, and reaches no host."""
    assert ask(local, "/heartbeat", body=bytes(5000))[0] == 413
    assert not script.asked
