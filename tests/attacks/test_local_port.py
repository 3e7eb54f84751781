"""The local port: answers without end from the host, greedy clients on this computer, and its secret."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import signal
import socket
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

import dls
from dls.cli import console
from dls.contract import MAX_HEAD_BYTES
from dls.credentials import server_field
from dls.demo import sshd
from dls.engine_choice import EngineChoice
from dls.remote.ssh.target import Target
from dls.remote.tunnel import downstream, proxy
from dls.remote.tunnel.body_memory import BodyMemory
from dls.segment.http import Address
from dls.segment.itksnap import ItkSnapClient
from tests.support.connecting import command, connected, cut
from tests.support.http_server import LiveServer
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, interruptible, until
from tests.support.proxied_server import ProxiedServer, proxied

SECRET = "open-sesame"
GET = b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def proxied_server(live: LiveServer) -> Iterator[ProxiedServer]:
    """The live server behind a proxy."""
    with proxied(live.port) as server:
        yield server


@contextlib.contextmanager
def upstream(answer: Callable[[socket.socket], None]) -> Iterator[tuple[int, threading.Event]]:
    """Run a server that reads a request's head and answers as it likes; yields its port, and what is set at its end."""
    ended = threading.Event()

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                while b"\r\n\r\n" not in client.recv(65536, socket.MSG_PEEK):
                    pass
                client.recv(65536)
                answer(client)
        ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], ended
        listener.shutdown(socket.SHUT_RDWR)


def send_chunks(client: socket.socket, count: int | None) -> None:
    """Send an answer of chunks of 1 MiB, so many of them or without end."""
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    while count is None or count > 0:
        client.sendall(chunk)
        count = None if count is None else count - 1
    client.sendall(b"0\r\n\r\n")


def read_all(client: socket.socket) -> bytes:
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := client.recv(65536):
            received += data
    return bytes(received)


def ask(port: int, data: bytes) -> bytes:
    """Send bytes to the port and return all that comes back until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        with contextlib.suppress(OSError):  # it may be refused before all is sent
            client.sendall(data)
        return read_all(client)


def test_an_endless_answer_is_passed_on() -> None:
    """Row 16: an answer in chunks without end reaches the client as it comes, and ends when the client goes."""
    with upstream(lambda client: send_chunks(client, None)) as (port, ended), proxied(port) as server:
        with server.connect() as client:
            client.sendall(GET)
            received = b""
            while len(received) < 32 << 20:
                data = client.recv(1 << 20)
                assert data
                received += data
            assert b"transfer-encoding: chunked" in received[:1000].lower()
        assert ended.wait(30)


def test_a_long_answer_takes_little_memory() -> None:
    """Row 16: 256 MiB in chunks are received whole, and at no time held as a whole."""
    with (
        upstream(lambda client: send_chunks(client, 256)) as (port, _),
        proxied(port) as server,
        server.connect() as client,
    ):
        tracemalloc.start()
        client.sendall(GET)
        received, end = 0, b""
        while data := client.recv(1 << 20):
            received, end = received + len(data), data[-5:]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert received > 256 << 20 and end == b"0\r\n\r\n"
    assert peak < 96 << 20


def test_an_answer_for_a_client_of_http_1_0() -> None:
    """Row 16: a client that knows no chunks gets the same bytes, up to the end of the connection."""
    with upstream(lambda client: send_chunks(client, 8)) as (port, _), proxied(port) as server:
        answer = ask(server.port, b"GET /v2/models HTTP/1.0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head.lower() and body == bytes(8 << 20)


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_head_that_is_too_large(proxied_server: ProxiedServer, is_whole: bool) -> None:
    """Row 6, local side: it gets 431 whether its end comes or not, and no channel is opened for it."""
    line = b"X-Long: " + b"a" * 1000 + b"\r\n"
    start = GET[: GET.index(b"Host")]
    end = b"\r\n" if is_whole else b""
    answer = ask(proxied_server.port, start + b"Host: localhost\r\n" + line * (MAX_HEAD_BYTES // len(line) + 100) + end)
    assert answer.startswith(b"HTTP/1.1 431 ") and answer.endswith(b'."}')
    assert not proxied_server.endpoint.channels
    fits = line * (MAX_HEAD_BYTES // len(line) - 1) + b"Connection: close\r\n\r\n"
    assert not ask(proxied_server.port, start + b"Host: localhost\r\n" + fits).startswith(b"HTTP/1.1 400 ")


def test_silence_ends_a_connection(proxied_server: ProxiedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 11, local side: before a head it ends without an answer, in the middle of one with 408, in the middle of a
    body too; a body that moves is received whole, however long it takes."""
    for name in ("IDLE_SECONDS", "HEAD_SECONDS", "BODY_SECONDS"):
        monkeypatch.setattr(downstream, name, 1.0)
    assert ask(proxied_server.port, b"") == b""
    assert ask(proxied_server.port, b"GET / HTTP/1.1\r\nHost: loc").startswith(b"HTTP/1.1 408 ")
    for size in (10, downstream.LARGE_BODY + 10):
        half = b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nhalf" % size
        assert b" 200 " not in ask(proxied_server.port, half)
    assert ask(proxied_server.port, GET).startswith(b"HTTP/1.1 200 ")


def test_a_head_that_comes_byte_by_byte(proxied_server: ProxiedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 11, local side: a head has one time limit, which a byte now and then does not extend."""
    monkeypatch.setattr(downstream, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(downstream, "IDLE_SECONDS", 30.0)
    with proxied_server.connect() as client:
        client.settimeout(0.05)
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        answer = b""
        while not answer:
            client.sendall(b"a")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_connections_without_end(proxied_server: ProxiedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 11, local side: the oldest idle connection makes room for a new one; where all are at a request, a new one
    gets 429."""
    monkeypatch.setattr(proxy, "MAX_CLIENTS", 5)
    with contextlib.ExitStack() as stack:

        def opened(data: bytes = b"") -> socket.socket:
            client = stack.enter_context(proxied_server.connect())
            client.settimeout(30)
            client.sendall(data)
            return client

        first = opened()
        for _ in range(30):
            opened()
        assert read_all(first) == b""
        assert ask(proxied_server.port, GET).startswith(b"HTTP/1.1 200 ")
        head = b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        busy = [opened(head) for _ in range(5)]
        for client in busy:  # from now on each of them is at a request
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        assert ask(proxied_server.port, GET).startswith(b"HTTP/1.1 429 ")
        busy[0].sendall(b"half12345")
        assert busy[0].recv(100).startswith(b"HTTP/1.1 405 ")
        busy[0].close()
        until(lambda: ask(proxied_server.port, GET).startswith(b"HTTP/1.1 200 "))


def test_bodies_of_many_clients(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 9, local side: what is kept of all bodies to be sent again has a limit. Beyond it a body is sent once; the
    memory is free again when its request has ended or its client has gone."""
    memory = BodyMemory(3 << 20)
    monkeypatch.setattr("dls.remote.tunnel.proxy.BodyMemory", lambda: memory)
    volume = np.random.default_rng(0).normal(size=(20, 128, 128)).astype(np.float32)  # 1.2 MiB when packed
    with proxied(live.port) as server:
        snap = server.snap
        snap.start()
        with server.connect() as greedy:
            greedy.sendall(b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nx" % (5 << 19))
            until(lambda: len(server.endpoint.channels) == 2)
            assert snap.upload(volume).status == 200
            server.endpoint.cuts = [0]
            assert snap.upload(volume).status == 502
        for _ in range(5):
            until(lambda: memory._left == 3 << 20)
            server.endpoint.cuts = [0]
            assert snap.upload(volume).status == 200


def basic(text: str) -> str:
    return f"Authorization: Basic {base64.b64encode(text.encode()).decode()}"


def test_the_secret_of_the_local_port(live: LiveServer) -> None:
    """Section 5: without the secret a request gets 401 and reaches no host; with it ITK-SNAP works up to a click, and
    the secret ends at the local port."""
    with proxied(live.port, secret=SECRET) as server:
        for headers in ((), (basic("snap:wrong"),), (basic(SECRET),), ("Authorization: Bearer x",), (basic("snap:"),)):
            for path in ("/status", "/v2/models", "/v2/start_session/region", "/capabilities", "/healthz"):
                answer = server.snap.get(path, headers)
                assert answer.status == 401 and "secret" in answer.error and "API key" in answer.error
                assert answer.headers["www-authenticate"].startswith("Basic ")
        assert ask(server.port, GET.replace(b"Host", b"Authorization: Basic \xff\r\nHost")).startswith(b"HTTP/1.1 401 ")
        assert not server.endpoint.channels
        assert server.snap.get("/v2/models", (f"Authorization: Bearer {SECRET}",)).status == 200
        snap = ItkSnap(server.port, f"snap:{SECRET}@127.0.0.1")
        snap.start()
        assert snap.upload(np.zeros((20, 128, 128), np.float32)).status == 200
        assert snap.mask(snap.point(1, 1, 1))[1, 1, 1] == 1
        sent = b"".join(channel.sent for channel in server.endpoint.channels)
        assert b"uthorization" not in sent and SECRET.encode() not in sent
        large = ItkSnap(server.port)
        large.session = snap.session
        assert large.upload(np.random.default_rng(0).normal(size=(20, 128, 128)).astype(np.float32)).status == 401


def test_a_session_with_a_local_secret(host: sshd.Server, clean: str) -> None:
    """Section 5: `server_field` and `url` have the secret, and it stays the same when the link was lost."""
    with connected(host, clean, local_secret=True)[0] as session:
        credentials, _, name = session.server_field.rpartition("@")
        assert credentials.startswith("snap:") and len(credentials) > 20 and name == "localhost"
        assert session.url == f"http://{session.server_field}:{session.port}"
        assert credentials not in repr(session)
        assert ItkSnap(session.port).get("/status").status == 401
        snap = ItkSnapClient(Address(session.port, credentials=credentials))
        snap.start("region")
        snap.upload(np.zeros((3, 4, 5), np.float32), (1.0, 1.0, 1.0))
        assert snap.point(1, 1, 1)[1, 1, 1] == 1
        before = session.connection
        cut(session)
        assert snap.point(1, 1, 2)[1, 1, 2] == 1
        assert session.connection is not before and session.server_field == f"{credentials}@localhost"
    with connected(host, clean, local_secret=SECRET)[0] as session:
        assert session.server_field == f"snap:{SECRET}@localhost"
        assert ItkSnap(session.port, f"snap:{SECRET}@127.0.0.1").start()
    for wrong in ("", "a b", "a@b", "a:b", "ä", "a/b"):
        with pytest.raises(dls.TargetError, match="secret"):
            connected(host, clean, local_secret=wrong)


def test_the_command_shows_the_local_secret(host: sshd.Server, clean: str) -> None:
    """Section 5: the ready event's Server field has the secret, which opens the port; standard error has it nowhere."""
    process = subprocess.Popen(
        command(host, clean, "connect", "--json", "--local-secret", "--local-port", str(free_port())),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, preexec_fn=interruptible,
    )  # fmt: skip
    assert process.stdout is not None
    ready = next(event for event in map(json.loads, process.stdout) if event["event"] == "ready")
    credentials, _, name = ready["server"].rpartition("@")
    assert name == "localhost" and ready["url"] == f"http://{ready['server']}:{ready['port']}"
    assert ItkSnap(ready["port"]).get("/status").status == 401
    assert ItkSnap(ready["port"], f"{credentials}@127.0.0.1").start()
    process.send_signal(signal.SIGINT)
    _, progress = process.communicate(timeout=30)
    assert process.returncode == 0 and credentials not in progress


@pytest.mark.parametrize(
    ("secret", "server", "sentence"),
    [
        (None, "Server: localhost ", "Other users of this computer can use it too; --local-secret"),
        (SECRET, f"Server: snap:{SECRET}@localhost ", "It asks for the secret"),
    ],
)
@pytest.mark.parametrize("engine", ["region", "nninteractive"])
def test_the_panel_says_who_can_use_the_port(secret: str | None, server: str, sentence: str, engine: str) -> None:
    """Section 5: the panel has the Server field to copy, and says whether other users of this computer get in. Where
    the server speaks nnInteractive's own protocol, it has the URL for other viewers, and their API key."""
    shown = io.StringIO()
    viewers = dls.ServerOptions(engine).serves_viewers
    session = SimpleNamespace(
        connection=SimpleNamespace(target=Target("gpu", "gpu", 22, "ann")),
        state=SimpleNamespace(engine=engine, device="cpu", log="/log"),
        report=SimpleNamespace(gpus=()), login=dls.LoginOptions(), target="gpu",
        server_field=server_field(secret), port=8911, local_secret=secret, serves_viewers=viewers, job=None,
        choice=EngineChoice(engine), models=dls.ServerOptions(engine).models,
        page_url=None,
    )  # fmt: skip
    console.show_session(Console(file=shown, width=200), cast(Any, session))
    assert server in shown.getvalue() and sentence in shown.getvalue()
    assert ("URL: http://localhost:8911" in shown.getvalue()) is (engine == "nninteractive")
    assert (f"API key: {SECRET}" in shown.getvalue()) is (engine == "nninteractive" and secret is not None)
    assert not dls.ServerOptions("nninteractive", native_api=False).serves_viewers
