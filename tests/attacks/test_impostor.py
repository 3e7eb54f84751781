"""Another program holds the loopback port on which the server was: it gets nothing, and nobody believes it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dls.contract import ServerState
from dls.demo import sshd
from dls.errors import ForwardError
from dls.remote.host import status
from dls.remote.ssh.connection import Connection
from tests.support.connecting import connected
from tests.support.itksnap import ItkSnap
from tests.support.processes import until

STATE = ServerState(1, "the-secret", "c", "r", "/none", 1, "region", "cpu", "/l", "/r")

Answer = Callable[[bytes], bytes]
"""What an impostor sends when it has received so much; nothing lets it wait for more."""


class Impostor:
    """Listens on a port that a server of ours may have had before, and answers as it likes."""

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        self._listener = listener
        self._answer = answer
        self.port: int = listener.getsockname()[1]
        self.connections: list[bytearray] = []
        """Everything that came, connection by connection."""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def received(self) -> bytes:
        return b"".join(self.connections)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        received = bytearray()
        self.connections.append(received)
        with client, contextlib.suppress(OSError):
            while data := client.recv(65536):
                received += data
                if answer := self._answer(bytes(received)):
                    client.sendall(answer)


@contextlib.contextmanager
def impostor(answer: Answer, port: int = 0) -> Iterator[Impostor]:
    """Take the port, as soon as it is free, and listen on it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = time.monotonic() + 30
        while True:
            try:
                listener.bind(("127.0.0.1", port))
                break
            except OSError:
                assert time.monotonic() < deadline
        listener.listen(100)
        yield Impostor(listener, answer)
        listener.shutdown(socket.SHUT_RDWR)


def plain_http(state: ServerState) -> Answer:
    """Answer as a server that listens with HTTP does: to `/status` with the real server's process number and code."""
    status = {"status": "ok", "version": "0.1.6", "pid": state.pid, "code": state.code, "idle": 0.0}

    def answer(received: bytes) -> bytes:
        if not received.startswith((b"GET ", b"POST ")):
            return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        if b"\r\n\r\n" not in received:
            return b""
        body = json.dumps(status if b"/status" in received else {"session_id": "x", "result": "", "status": "success"})
        return (
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    return answer


def test_an_impostor_on_the_port_gets_nothing(clean: str, short_folder: Path) -> None:
    """Row 1: when the server was killed and another user's program holds its port and claims its process number and
    code, no byte of a request and no secret reach that program, and a new server answers the next click."""
    with sshd.running(short_folder, options="AllowStreamLocalForwarding no") as server:
        session, reporter = connected(server, clean)
        with session:
            snap, first = ItkSnap(session.port), session.state
            snap.start()
            assert snap.upload(np.zeros((3, 4, 5), np.float32)).status == 200
            assert first.port is not None and first.secret is not None
            os.kill(first.pid, signal.SIGKILL)
            with impostor(plain_http(first), first.port) as other:
                assert snap.mask(snap.point(1, 1, 1))[1, 1, 1] == 1
                assert snap.upload(np.ones((3, 4, 5), np.float32)).status == 200
                assert snap.mask(snap.point(1, 1, 1))[1, 1, 1] == 1
                assert session.state.pid != first.pid and session.state.port != first.port
                assert first.secret.encode() not in other.received
                assert not any(word in other.received for word in (b"HTTP/1", b"Authorization", b"Basic"))
        assert first.secret not in str(reporter.notes)
        session.close(stop_server=True)


def test_a_server_whose_port_is_held_by_another_program_is_replaced(clean: str, short_folder: Path) -> None:
    """Row 1: a new connect does not take another program on the port for the server, says that it is there, and starts
    a server of its own; this holds for a server of an earlier release too, which speaks plain HTTP on the port."""
    with sshd.running(short_folder, options="AllowStreamLocalForwarding no") as server:
        session, _ = connected(server, clean)
        session.close()
        first = session.state
        file = Path(first.run_dir) / "state.json"
        with impostor(plain_http(first)) as other:
            file.write_text(replace(first, port=other.port).dump())
            session, reporter = connected(server, clean)
            with session:
                assert ItkSnap(session.port).start()
                assert session.state.pid != first.pid and session.state.port != other.port
            assert any("can't prove that it is our server" in note for note in reporter.notes)
            assert b"HTTP/1" not in other.received
        session.close(stop_server=True)


@pytest.mark.parametrize(
    "answer",
    [
        lambda received: bytes(64),
        lambda received: received[-32:] * 2,
        lambda received: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"{" * 100,
    ],
    ids=["zeros", "our own nonce", "HTTP"],
)
def test_a_false_proof(connection: Connection, answer: Answer) -> None:
    """Row 1: after a proof that is false, nothing more is sent than the nonce with which the exchange begins."""
    with impostor(answer) as other:
        with pytest.raises(ForwardError, match="can't prove"):
            status.open_channel(connection, replace(STATE, port=other.port))
        until(lambda: len(other.received) >= 44)
        assert len(other.received) == 44


def test_silence_instead_of_a_proof(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 1: where no proof comes, or only a part of one, the wait ends, and nothing more is sent either."""
    monkeypatch.setattr(status, "ANSWER_SECONDS", 0.5)
    for answer in (lambda received: b"", lambda received: bytes(63)):
        with impostor(answer) as other:
            with pytest.raises(ForwardError, match="before it had proved"):
                status.open_channel(connection, replace(STATE, port=other.port))
            until(lambda: len(other.received) >= 44)
            assert len(other.received) == 44
