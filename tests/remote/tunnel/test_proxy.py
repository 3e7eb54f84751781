"""The relay against a live server, over a way that the test can cut: what waits, what is sent again, what is not."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from dls.contract import ServerState
from dls.errors import ForwardError
from dls.remote.tunnel import downstream
from dls.remote.tunnel import headers as http_headers
from dls.remote.tunnel.link import Link, LinkState
from dls.remote.tunnel.proxy import Proxy
from tests.support.http_server import LiveServer
from tests.support.itksnap import ItkSnap, described, form, packed
from tests.support.processes import until

STATE = ServerState(1, "secret", "c", "r", "/s", None, "region", "cpu", "/l", "/r")


class Pipe:
    """A channel: a socket to the server that can be cut after so many bytes, there or back."""

    def __init__(self, port: int, cut_after: int | None) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._left = cut_after
        self.closed = self.eof_received = False
        self.sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data[:2000]
        self._sock.sendall(data)

    def recv(self, size: int) -> bytes:
        if self._left is None:
            return self._sock.recv(size)
        if self._left <= 0:
            return b""
        data = self._sock.recv(min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self.closed = True
        self._sock.close()


@dataclass
class Far:
    """The far end: opens pipes to the live server."""

    port: int
    version: str = "0.1.6"
    state: ServerState = STATE
    cuts: list[int | None] = field(default_factory=list)
    """After how many bytes of its answer each of the next pipes is cut."""
    is_up: bool = True
    pipes: list[Pipe] = field(default_factory=list)

    def open(self) -> Any:
        if not self.is_up:
            raise ForwardError("Nobody listens there.")
        self.pipes.append(Pipe(self.port, self.cuts.pop(0) if self.cuts else None))
        return self.pipes[-1]


class Unopened(Link):
    """A link that opens no channels ahead, so that a test knows which one a request takes."""

    def _refill(self) -> None:
        pass


@dataclass
class ThreadedPrompter:
    """A local port with a relay behind it."""

    link: Link
    far: Far
    snap: ItkSnap


@pytest.fixture
def relayed(live: LiveServer) -> Iterator[ThreadedPrompter]:
    far = Far(live.port)
    link = Unopened(far)  # type: ignore[arg-type]
    relay = Proxy(link, wait=2.0)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=serve, args=(sock,), daemon=True).start()

        def serve(sock: socket.socket) -> None:
            with sock:
                relay.serve(sock)

        threading.Thread(target=accept, daemon=True).start()
        yield ThreadedPrompter(link, far, ItkSnap(listener.getsockname()[1]))
        listener.shutdown(socket.SHUT_RDWR)
    for pipe in far.pipes:
        pipe.close()


def test_answers_pass_as_they_are(relayed: ThreadedPrompter, live: LiveServer) -> None:
    """Status, body, and the headers that are not of one connection only."""
    straight = ItkSnap(live.port)
    for path in ("/status", "/v2/models", "/no/such/route", "/v2/start_session/none"):
        ours, theirs = relayed.snap.get(path), straight.get(path)
        assert (ours.status, ours.body, ours.headers["content-type"]) == (
            theirs.status, theirs.body, theirs.headers["content-type"],
        )  # fmt: skip
    assert relayed.snap.post("/status", b"", b"").status == 404


def test_a_large_body_that_expects_to_go_on(relayed: ThreadedPrompter) -> None:
    """`100 Continue` comes from here, without a round trip."""
    volume = np.random.default_rng(0).normal(size=(40, 128, 128)).astype(np.float32)
    relayed.snap.start()
    assert relayed.snap.upload(volume).status == 200
    assert b"100-continue" not in b"".join(pipe.sent.lower() for pipe in relayed.far.pipes)


def test_the_link_is_lost(relayed: ThreadedPrompter) -> None:
    """`/status` is refused at once, others wait and then are; what waits goes through when the link is back."""
    relayed.snap.start()
    relayed.link.lost(LinkState.LOST, "The connection to gpu was lost.")
    started = time.monotonic()
    answer = relayed.snap.get("/status")
    assert answer.status == 503 and answer.error == "The connection to gpu was lost."
    assert time.monotonic() - started < 1.5
    answer = relayed.snap.get("/v2/models")
    assert answer.status == 503 and "gpu was lost" in answer.error
    threading.Timer(0.7, relayed.link.opened, [relayed.far]).start()
    assert relayed.snap.get("/v2/models").status == 200


def test_the_server_sleeps(relayed: ThreadedPrompter) -> None:
    """Who only asks is told that it is there, and does not wake it; who needs it does."""
    relayed.link.lost(LinkState.ASLEEP, "The server was ended.")
    assert relayed.snap.get("/status").json == {"status": "ok", "version": "0.1.6"}
    assert not relayed.link.wanted
    threading.Timer(0.5, relayed.link.opened, [relayed.far]).start()
    assert relayed.snap.get("/v2/models").status == 200 and not relayed.link.wanted


@pytest.mark.parametrize("cut", [0, 20, 150])
def test_a_cut_answer_is_asked_for_again(relayed: ThreadedPrompter, cut: int) -> None:
    """By the same name, so that the server does not apply the prompt twice."""
    relayed.snap.start()
    relayed.snap.upload(np.zeros((3, 4, 5), np.float32))
    before = len(relayed.far.pipes)
    relayed.far.cuts = [cut, cut]
    assert relayed.snap.mask(relayed.snap.point(1, 1, 1))[1, 1, 1] == 1
    first, second, third = relayed.far.pipes[before:]
    names = {
        line for pipe in (first, second, third) for line in pipe.sent.split(b"\r\n") if line.startswith(b"X-Dls-R")
    }
    assert len(names) == 1
    assert [b"X-Dls-Again" in pipe.sent for pipe in (first, second, third)] == [False, True, True]


def test_an_upload_that_is_cut_is_sent_again_whole(relayed: ThreadedPrompter) -> None:
    """The body is held until it is answered."""
    relayed.snap.start()
    relayed.far.cuts = [0]
    assert relayed.snap.upload(np.random.default_rng(0).normal(size=(20, 64, 64)).astype(np.float32)).status == 200


def test_what_ends_the_server_each_time_is_not_sent_for_ever(relayed: ThreadedPrompter) -> None:
    """After five tries the client is told."""
    relayed.far.cuts = [0] * 10
    answer = relayed.snap.get("/v2/models")
    assert answer.status == 502 and "middle of this request" in answer.error
    assert len(relayed.far.pipes) == 5


def test_what_we_do_not_know_is_sent_once(relayed: ThreadedPrompter) -> None:
    """A request of another protocol could do something each time."""
    relayed.far.cuts = [0]
    assert relayed.snap.post("/predict", b"x", b"y").status == 502
    assert len(relayed.far.pipes) == 1


@pytest.mark.parametrize(
    ("method", "target", "may"),
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
def test_which_requests_may_be_repeated(method: bytes, target: bytes, may: bool) -> None:
    """Those that change nothing, and those that the server knows by their names."""
    assert http_headers.may_repeat(method, target) is may


def test_credentials_are_shown_for_local_names_only() -> None:
    """A page that calls this computer by a name of its own gets none; what the user typed once is replaced."""
    for host, shown in ((b"localhost:8911", True), (b"127.0.0.1", True), (b"[::1]:1", True), (b"evil.example", False)):
        headers = [(b"Host", host), (b"Authorization", b"Basic old"), (b"Expect", b"100-continue")]
        said = dict(http_headers.forwarded(headers, "n", "new", again=False))
        assert said[b"Authorization"] == (b"Basic new" if shown else b"Basic old")
        assert b"Expect" not in said and said[b"X-Dls-Request"] == b"n"


def connected(relayed: ThreadedPrompter) -> socket.socket:
    """A connection to the local port, for what curl does not do."""
    return socket.create_connection(("127.0.0.1", int(relayed.snap.url.rpartition(":")[2])), 10)


def all_of(sock: socket.socket) -> bytes:
    """Whatever is said until the end."""
    said = b""
    while data := sock.recv(4096):
        said += data
    return said


def test_several_requests_on_one_connection(relayed: ThreadedPrompter) -> None:
    """Also when they come at once, bodies and all: sized, in chunks, empty."""
    requests_ = (
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\n\r\n"
        b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    with connected(relayed) as sock:
        sock.sendall(requests_)
        said = all_of(sock)
    assert [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]] == [b"404", b"404", b"200", b"200"], said
    assert b"hello" in relayed.far.pipes[0].sent and b"3\r\nabc\r\n0\r\n\r\n" in relayed.far.pipes[1].sent


def test_a_large_upload_in_chunks_is_the_same_upload(relayed: ThreadedPrompter) -> None:
    """Held, cut and sent again as one with a length is."""
    volume = np.random.default_rng(0).normal(size=(20, 128, 128)).astype(np.float32)
    relayed.snap.start()
    relayed.snap.shape = volume.shape
    body, kind = form([("file", packed(volume)), ("metadata", described(volume.shape))])
    head = (
        f"POST /upload_raw/{relayed.snap.session} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert len(body) > downstream.LARGE
    relayed.far.cuts = [0]
    with connected(relayed) as sock:
        sock.sendall(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert all_of(sock).startswith(b"HTTP/1.1 200")
    assert relayed.snap.mask(relayed.snap.point(1, 1, 1))[1, 1, 1] == 1


@pytest.mark.parametrize("size", [1000, downstream.LARGE + 1000])
def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(relayed: ThreadedPrompter, size: int) -> None:
    """Its thread ends, and its channel."""
    with connected(relayed) as sock:
        sock.sendall(b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nhello" % size)
        until(lambda: bool(relayed.far.pipes))
    until(lambda: relayed.far.pipes[0].closed)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "dls-body"])


def test_a_body_goes_with_its_request(relayed: ThreadedPrompter) -> None:
    """At once: it is as large as an image, and an idle client collects no garbage for hours."""
    volume = np.random.default_rng(0).normal(size=(20, 128, 128)).astype(np.float32)
    relayed.snap.start()
    gc.collect()
    gc.disable()
    try:
        assert relayed.snap.upload(volume).status == 200
        until(lambda: not any(type(each) is downstream.Sized for each in gc.get_objects()), 5)
    finally:
        gc.enable()


def test_what_is_too_large_to_be_held_is_sent_once(relayed: ThreadedPrompter, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes all the same."""
    monkeypatch.setattr(downstream, "MAX_REPLAY_BODY", 10_000)
    volume = np.random.default_rng(0).normal(size=(20, 128, 128)).astype(np.float32)
    relayed.snap.start()
    assert relayed.snap.upload(volume).status == 200
    relayed.far.cuts = [0]
    assert relayed.snap.upload(volume).status == 502


def test_what_is_no_http_is_refused(relayed: ThreadedPrompter) -> None:
    """400, and the connection ends."""
    with connected(relayed) as sock:
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        assert all_of(sock).startswith(b"HTTP/1.1 400")
