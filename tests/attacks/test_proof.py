"""A server's loopback port: both ends prove that they know the secret, which itself never travels."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dls.contract import NONCE_BYTES, PROOF_BYTES, PROOF_MAGIC, LaunchFile, ServerState, prove
from tests.support.itksnap import ItkSnap
from tests.support.processes import until

REQUEST = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@dataclass
class Launched:
    """A server as `dls connect` launches it where Unix sockets can't be forwarded."""

    port: int
    secret: str
    pid: int


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Launch one, with a port and a socket."""
    folder = tmp_path_factory.mktemp("launch")
    run_dir = Path("/tmp") / f"dls-p-{secrets.token_hex(4)}"
    run_dir.mkdir(mode=0o700)
    file = LaunchFile(
        run_dir=str(run_dir), uds=str(run_dir / "server.sock"), name="proof", code="c", request="r", log="",
        engine="region", device="cpu", stand_in=False, tcp=True, model=None, models_path=None, network=False,
        insecure=False, ca_bundle=None, compile=False, native_api=False, session_dir=str(folder), session_ttl=3600,
        idle=0,
    )  # fmt: skip
    (run_dir / "launch.json").write_text(file.dump())
    arguments = [sys.executable, "-m", "dls", "serve", "--launch-file", str(run_dir / "launch.json")]
    process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL)
    state = run_dir / "state.json"
    try:
        until(state.exists)
        found = ServerState.parse(state.read_text(), str(run_dir))
        assert found is not None and found.port is not None and found.secret is not None
        yield Launched(found.port, found.secret, process.pid)
    finally:
        process.terminate()
        process.wait(60)
        for path in run_dir.iterdir():
            path.unlink()
        run_dir.rmdir()


def read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := client.recv(count - len(data))):
        data += piece
    return data


def read_all(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65536):
            data += piece
    return data


class Client:
    """Plays the laptop's side of the exchange on one connection."""

    def __init__(self, port: int, secret: str, named_port: int | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.secret, self.port = secret, named_port or port
        self.nonce = secrets.token_bytes(NONCE_BYTES)

    def greet(self) -> bool:
        """Send the nonce; return whether the server proved that it knows the secret."""
        self.socket.sendall(PROOF_MAGIC + self.nonce)
        self.server_nonce = read(self.socket, NONCE_BYTES)
        proof = read(self.socket, PROOF_BYTES)
        return proof == prove(self.secret, "server", self.port, self.nonce, self.server_nonce)

    @property
    def proof(self) -> bytes:
        return prove(self.secret, "client", self.port, self.nonce, self.server_nonce)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()


def test_who_knows_the_secret_gets_in_without_sending_it(launched: Launched) -> None:
    """Row 1: after both proofs the connection speaks HTTP, and `/status` tells what those with the secret may know."""
    with Client(launched.port, launched.secret) as client:
        assert client.greet()
        client.socket.sendall(client.proof + REQUEST)
        head, _, body = read_all(client.socket).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert json.loads(body)["pid"] == launched.pid
    with Client(launched.port, launched.secret) as client:  # in any pieces, and for several requests
        assert client.greet()
        for byte in client.proof:
            client.socket.sendall(bytes([byte]))
        client.socket.sendall(REQUEST.replace(b"Connection: close\r\n", b"") * 2 + REQUEST)
        assert read_all(client.socket).count(b"HTTP/1.1 200 ") == 3


def test_plain_http_is_refused(launched: Launched) -> None:
    """Row 1: plain HTTP gets 401 on that port, with the secret too, which nobody is to send there."""
    assert ItkSnap(launched.port).get("/status").status == 401
    assert ItkSnap(launched.port, f"snap:{launched.secret}@127.0.0.1").get("/status").status == 401


def test_a_wrong_secret_and_a_replayed_proof_get_nothing(launched: Launched) -> None:
    """Row 1: who does not know the secret gets no byte of HTTP, nor who repeats what somebody else sent."""
    with Client(launched.port, "wrong") as client:
        assert not client.greet()
        client.socket.sendall(client.proof + REQUEST)
        assert read_all(client.socket) == b""
    with Client(launched.port, launched.secret) as honest:
        assert honest.greet()
        honest.socket.sendall(honest.proof + REQUEST)
        assert read_all(honest.socket).startswith(b"HTTP/1.1 200 ")
        with Client(launched.port, "unknown") as replaying:
            replaying.nonce = honest.nonce
            replaying.greet()
            replaying.socket.sendall(honest.proof + REQUEST)
            assert read_all(replaying.socket) == b""
    with Client(launched.port, launched.secret) as mirrored:  # the server's own proof, sent back to it
        assert mirrored.greet()
        mirrored.socket.sendall(
            prove(launched.secret, "server", launched.port, mirrored.nonce, mirrored.server_nonce) + REQUEST
        )
        assert read_all(mirrored.socket) == b""


def test_another_port_cannot_pass_the_exchange_on(launched: Launched) -> None:
    """Row 1: an impostor on another port who relays each byte to the real server proves nothing, and is refused."""
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        port = impostor.getsockname()[1]

        def relay() -> None:
            victim, _ = impostor.accept()
            with victim, socket.create_connection(("127.0.0.1", launched.port), timeout=60) as real:
                real.sendall(read(victim, len(PROOF_MAGIC) + NONCE_BYTES))
                victim.sendall(read(real, NONCE_BYTES + PROOF_BYTES))
                real.sendall(read(victim, PROOF_BYTES) + REQUEST)
                victim.sendall(read_all(real))

        thread = threading.Thread(target=relay, daemon=True)
        thread.start()
        with Client(port, launched.secret) as client:
            assert not client.greet()  # where an honest client stops
            client.socket.sendall(client.proof)
            assert read_all(client.socket) == b""
        thread.join(60)


def test_nothing_is_read_as_http_before_the_proof(launched: Launched) -> None:
    """Row 1: a request in place of the proof is not answered, and one that is sent with the proof is."""
    with Client(launched.port, launched.secret) as client:
        assert client.greet()
        client.socket.sendall(REQUEST)
        assert read_all(client.socket) == b""
