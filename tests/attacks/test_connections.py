"""Heads without end, silent clients and too many connections, before any secret is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from dls.contract import MAX_HEAD_BYTES
from dls.server.http.connections import LimitedProtocol, limited_protocol
from tests.attacks.test_uploads import IMAGE, half_upload, limited
from tests.support.itksnap import ItkSnap
from tests.support.processes import until


async def read_and_answer(scope: Any, receive: Any, send: Any) -> None:
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def serving(protocol: type[LimitedProtocol], app: Any = read_and_answer) -> Iterator[int]:
    """Serve an application, by default one that reads the body and answers 200, on a loopback port."""
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        until(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(30)


def ask(port: int, data: bytes = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") -> bytes:
    """Send bytes and return all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        with contextlib.suppress(OSError):  # it may be refused before all is sent
            client.sendall(data)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_head_that_is_too_large_is_refused(is_whole: bool) -> None:
    """With 431, whether its end comes or not; the largest that is allowed passes."""
    with serving(LimitedProtocol) as port:
        line = b"X-Long: " + b"a" * 1000 + b"\r\n"
        end = b"Connection: close\r\n\r\n" if is_whole else b""
        answer = ask(port, b"GET / HTTP/1.1\r\n" + line * (MAX_HEAD_BYTES // len(line) + 300) + end)
        assert answer.startswith(b"HTTP/1.1 431 ") and answer.endswith(b'"}')
        fits = ask(
            port, b"GET / HTTP/1.1\r\n" + line * (MAX_HEAD_BYTES // len(line) - 1) + b"Connection: close\r\n\r\n"
        )
        assert fits.startswith(b"HTTP/1.1 200 ")


def test_silence_ends_a_connection() -> None:
    """Before a head without an answer, in the middle of one with 408, in the middle of a body too; others go on."""
    with serving(limited_protocol(head_seconds=1, body_seconds=1)) as port:
        assert ask(port, b"") == b""
        assert ask(port, b"GET / HTTP/1.1\r\nHost: loc").startswith(b"HTTP/1.1 408 ")
        assert ask(port, b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf") == b""
        assert ask(port).startswith(b"HTTP/1.1 200 ")


def test_idle_connections_make_room() -> None:
    """The oldest one is closed for a new one; one that is at a request is not, and then a new one gets 503."""
    with serving(limited_protocol(max_connections=5)) as port, contextlib.ExitStack() as stack:

        def opened(data: bytes = b"") -> socket.socket:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            client.sendall(data)
            return client

        first = opened()
        for _ in range(30):
            opened()
        assert read_all(first) == b""
        assert ask(port).startswith(b"HTTP/1.1 200 ")
        head = b"POST / HTTP/1.1\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"
        busy = [opened(head) for _ in range(5)]
        for client in busy:  # from now on each of them is at a request
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        assert ask(port).startswith(b"HTTP/1.1 503 ")
        busy[0].sendall(b"half123456")
        assert busy[0].recv(100).startswith(b"HTTP/1.1 200 ")


def test_two_thousand_idle_connections_and_two_hundred_half_uploads() -> None:
    """The next request is answered all the same."""
    with serving(LimitedProtocol) as port, contextlib.ExitStack() as stack:
        for number in range(2200):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            if number % 11 == 0:
                client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\nhalf")
        assert ask(port).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order() -> None:
    """Row 6: a body larger than a head may be, sent before an earlier request was answered, is no head."""
    body = b"a" * (2 * MAX_HEAD_BYTES)
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n".encode()
    with serving(LimitedProtocol) as port, socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(head + b"\r\n" + body + head + b"Connection: close\r\n\r\n" + body[:10])
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
        client.sendall(body[10:-10])
        client.sendall(body[-10:])
        assert read_all(client).count(b"HTTP/1.1 200 ") == 1


def test_a_body_that_is_waited_for_is_not_cut() -> None:
    """Row 6: while the server, not the client, takes its time, the limit of a body does not count."""
    release = threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        while not release.is_set():  # the client waits for `100 Continue` before it sends its body
            await asyncio.sleep(0.01)
        assert (await receive())["body"] == b"whole body"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    with (
        serving(limited_protocol(head_seconds=1, body_seconds=1), slow) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as client,
    ):
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n")
        threading.Timer(1.2, release.set).start()
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"whole body")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_malformed_requests_leave_the_log_quiet(request_: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Row 11: nothing above debug is logged for a request that is no HTTP, or asks for another protocol."""
    with caplog.at_level("INFO"), serving(LimitedProtocol) as port:
        caplog.clear()
        assert ask(port, request_).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
        assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_a_proven_connection_may_stay_silent() -> None:
    """Row 6: channels that `dls connect` opens ahead of need live on where a stranger's connection is closed."""
    trusted = limited_protocol(head_seconds=0.2, is_proven=True)
    with (
        serving(trusted) as port,
        serving(limited_protocol(head_seconds=0.4)) as other,
        socket.create_connection(("127.0.0.1", port), timeout=30) as waiting,
    ):
        assert ask(other, b"") == b""
        waiting.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert read_all(waiting).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_real_server_under_a_flood(tmp_path: Path) -> None:
    """Rows 6 and 11: begun with 1024 descriptors, 2,000 idle connections and 200 half uploads stop nobody."""
    for process in limited("ulimit -S -n 1024", tmp_path):
        snap = ItkSnap(process.port)
        snap.start()
        assert snap.upload(IMAGE).status == 200
        with contextlib.ExitStack() as stack:
            for _ in range(200):
                other = ItkSnap(process.port).start()
                stack.enter_context(half_upload(process.port, other, b"\x1f\x8b"))
            for _ in range(2000):
                stack.enter_context(socket.create_connection(("127.0.0.1", process.port), timeout=30))
            assert snap.get("/status").status == 200
            assert snap.mask(snap.point(15, 20, 25)).any()
        process.process.terminate()
        assert process.process.stderr is not None
        log = process.process.stderr.read()
        noise = [
            line for line in log.splitlines() if not re.search(r" INFO (GET|POST) (start_session|upload_raw)", line)
        ]
        assert len(noise) < 20, noise[:50]
