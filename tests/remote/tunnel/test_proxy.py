"""The proxy in front of a live server, over channels that the test cuts: what waits and what is sent again."""

from __future__ import annotations

import contextlib
import json
import socket
import threading

import numpy as np
import pytest

from dls.contract import NO_IMAGE, UNKNOWN_SESSION
from dls.remote.tunnel.link import Closed, Connected, ConnectionLost, LinkState, ServerStopped
from tests.support.http_server import LiveServer
from tests.support.itksnap import ItkSnap, described, form, packed
from tests.support.processes import until
from tests.support.proxied_server import ProxiedServer


def test_answers_are_passed_on_unchanged(proxied_server: ProxiedServer, live: LiveServer) -> None:
    """Status, body and content type are those that the server itself sends."""
    direct = ItkSnap(live.port)
    for path in ("/status", "/v2/models", "/no/such/route", "/v2/start_session/none"):
        ours, theirs = proxied_server.snap.get(path), direct.get(path)
        assert (ours.status, ours.body, ours.headers["content-type"]) == (
            theirs.status, theirs.body, theirs.headers["content-type"],
        )  # fmt: skip
    assert proxied_server.snap.post("/status", b"", b"").status == 405


def test_expect_continue_is_answered_locally(proxied_server: ProxiedServer) -> None:
    """The proxy sends `100 Continue` itself, without a round trip to the host."""
    volume = np.random.default_rng(0).normal(size=(40, 128, 128)).astype(np.float32)
    proxied_server.snap.start()
    assert proxied_server.snap.upload(volume).status == 200
    assert b"100-continue" not in b"".join(channel.sent.lower() for channel in proxied_server.endpoint.channels)


def test_requests_while_the_link_is_lost(proxied_server: ProxiedServer) -> None:
    """They wait, and are answered when the link is open again."""
    link = proxied_server.link
    link.handle(ConnectionLost("The connection to gpu was lost."))
    answer = proxied_server.snap.get("/v2/models")
    assert answer.status == 503 and "gpu was lost" in answer.error
    assert link.demand
    with proxied_server.restored_on_demand():
        assert proxied_server.snap.get("/v2/models").status == 200


def test_requests_while_the_server_is_asleep(proxied_server: ProxiedServer) -> None:
    """`/status` is answered without waking the server; another request wakes it."""
    link = proxied_server.link
    link.handle(ServerStopped(proxied_server.endpoint, "The server was ended."))
    assert proxied_server.snap.get("/status").json == {"status": "ok", "version": "0.1.6"}
    assert not link.demand
    with proxied_server.restored_on_demand():
        assert proxied_server.snap.get("/v2/models").status == 200
    assert not link.demand and link.state is LinkState.OPEN


def test_requests_after_the_session_was_closed(proxied_server: ProxiedServer) -> None:
    """They are refused without waiting."""
    proxied_server.link.handle(Closed())
    answer = proxied_server.snap.get("/v2/models")
    assert answer.status == 503 and "connection is closed" in answer.error


@pytest.mark.parametrize("cut", [0, 20, 150])
def test_a_cut_answer_is_requested_again(proxied_server: ProxiedServer, cut: int) -> None:
    """The name stays the same, so that the server does not apply the prompt twice."""
    snap, endpoint = proxied_server.snap, proxied_server.endpoint
    snap.start()
    snap.upload(np.zeros((3, 4, 5), np.float32))
    before = len(endpoint.channels)
    endpoint.cuts = [cut, cut]
    assert snap.mask(snap.point(1, 1, 1))[1, 1, 1] == 1
    attempts = [channel.sent for channel in endpoint.channels[before:]]
    names = {line for sent in attempts for line in sent.split(b"\r\n") if line.startswith(b"X-Dls-R")}
    assert len(names) == 1
    assert [b"X-Dls-Again" in sent for sent in attempts] == [False, True, True]


def test_a_cut_upload_is_sent_again(proxied_server: ProxiedServer) -> None:
    """The whole body is sent again: it is kept until it is answered."""
    proxied_server.snap.start()
    proxied_server.endpoint.cuts = [0]
    volume = np.random.default_rng(0).normal(size=(20, 64, 64)).astype(np.float32)
    assert proxied_server.snap.upload(volume).status == 200


def test_a_request_that_is_cut_each_time_is_given_up(proxied_server: ProxiedServer) -> None:
    """After five attempts the client gets a 502."""
    proxied_server.endpoint.cuts = [0] * 10
    answer = proxied_server.snap.get("/v2/models")
    assert answer.status == 502 and "middle of this request" in answer.error
    assert len(proxied_server.endpoint.channels) == 5


def test_an_unknown_request_is_sent_once(proxied_server: ProxiedServer) -> None:
    """A request of another protocol could change something each time."""
    proxied_server.endpoint.cuts = [0]
    assert proxied_server.snap.post("/annotate", b"x", b"y").status == 502
    assert len(proxied_server.endpoint.channels) == 1


def test_a_server_that_is_back_before_the_loss_is_noticed(proxied_server: ProxiedServer) -> None:
    """While no channel can be opened and the link still counts as open, a request keeps trying and asks for a check."""
    endpoint, link = proxied_server.endpoint, proxied_server.link
    endpoint.is_up = False
    assert proxied_server.snap.get("/v2/models").status == 503
    assert link.wake.is_set() and link.demand
    endpoint.is_up = True
    link.handle(Connected(endpoint))
    assert proxied_server.snap.get("/v2/models").status == 200


def test_a_prompt_for_an_image_that_went_elsewhere(proxied_server: ProxiedServer) -> None:
    """ITK-SNAP sends an image once, whatever the server: the way out is in the answer, and once in the panel."""
    snap = proxied_server.snap
    snap.start()
    for _ in range(2):
        answer = snap.point(1, 1, 1)
        assert answer.status == 409 and answer.error == NO_IMAGE
        assert "choose another image, time point or model" in answer.error and "restart" in answer.error
    assert snap.draw("scribble", np.ones((3, 4, 5), np.float32)).error == NO_IMAGE
    until(lambda: proxied_server.shown == [f"A click in ITK-SNAP was refused. {NO_IMAGE}"])
    snap.session = "gone"
    assert snap.point(1, 1, 1).status == 404
    until(lambda: len(proxied_server.shown) == 2 and UNKNOWN_SESSION in proxied_server.shown[1])


def test_other_refusals_are_not_shown_in_the_panel(proxied_server: ProxiedServer) -> None:
    """The user has seen them in ITK-SNAP, or can do nothing about them there."""
    snap = proxied_server.snap
    snap.session = "gone"
    assert snap.upload(np.zeros((3, 4, 5), np.float32)).status == 404
    snap.start()
    snap.upload(np.zeros((3, 4, 5), np.float32))
    assert snap.point(9, 9, 9).status == 400
    assert proxied_server.shown == []


def test_an_upload_for_a_session_that_is_gone(proxied_server: ProxiedServer) -> None:
    """The server's 404 arrives before the image is sent, and hardly anything of it goes over the link."""
    snap = proxied_server.snap
    snap.session = "gone"
    volume = np.random.default_rng(0).normal(size=(160, 256, 256)).astype(np.float32)
    answer = snap.upload(volume)
    assert answer.status == 404 and answer.error == UNKNOWN_SESSION
    assert answer.headers["connection"] == "close"
    [channel] = proxied_server.endpoint.channels
    assert channel.sent_bytes < volume.nbytes / 4


def test_a_client_that_sends_on_after_a_refusal(proxied_server: ProxiedServer) -> None:
    """It reads the whole answer, although it has not sent all of its request."""
    size = 400_000_000
    sent = 0

    def send(sock: socket.socket) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            while sent < size:
                sent += sock.send(bytes(min(1 << 16, size - sent)))

    with proxied_server.connect() as sock, sock.makefile("rb") as answer:
        sock.sendall(b"POST /upload_raw/gone HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        sender = threading.Thread(target=send, args=(sock,))
        sender.start()
        head, _, body = answer.read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404") and b"\r\nconnection: close" in head
        assert json.loads(body) == {"error": UNKNOWN_SESSION, "detail": UNKNOWN_SESSION}
    sender.join()


@pytest.mark.parametrize("state", ["open", "lost"])
def test_http_1_0_without_a_host(proxied_server: ProxiedServer, state: str) -> None:
    """A client of HTTP/1.0 need not send Host, and gets its answer."""
    if state == "lost":
        proxied_server.link.handle(ConnectionLost("The connection to gpu was lost."))
    for path, status in ((b"/status", b"200"), (b"/v2/models", b"503" if state == "lost" else b"200")):
        with proxied_server.connect() as sock, sock.makefile("rb") as answer:
            sock.sendall(b"GET " + path + b" HTTP/1.0\r\n\r\n")
            assert answer.readline().startswith(b"HTTP/1.1 " + status)
            assert answer.read().endswith(b"}")


@pytest.mark.parametrize("path", ["/dls/images/{}", "/%64ls/images/{}", "/dls/parts/a/b"])
def test_what_the_proxy_asks_nobody_else_can_ask(proxied_server: ProxiedServer, path: str) -> None:
    """The addresses at which the server says what images it holds do not exist at the local port."""
    answer = proxied_server.snap.get(path.format("0" * 64 + "-1"))
    assert answer.status == 404 and "local port" in answer.error
    assert not proxied_server.endpoint.channels


def test_requests_are_numbered_when_they_have_been_read(proxied_server: ProxiedServer) -> None:
    """A drawing whose body comes late is applied after a click that came meanwhile, and both count."""
    snap = proxied_server.snap
    snap.start()
    volume = np.zeros((20, 24, 24), np.float32)
    assert snap.upload(volume).status == 200
    drawn = np.zeros(volume.shape, bool)
    drawn[1, 1, 1:4] = True
    body, kind = form([("file", packed(drawn.astype(np.float32))), ("metadata", described(volume.shape))])
    head = f"POST /process_scribble_interaction/{snap.session}?foreground=true HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with proxied_server.connect() as sock, sock.makefile("rb") as answer:
        sock.sendall(head.encode() + body[:-1])
        assert snap.point(10, 10, 10).status == 200
        sock.sendall(body[-1:])
        assert answer.readline().startswith(b"HTTP/1.1 200")
