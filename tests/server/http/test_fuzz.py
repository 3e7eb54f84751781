"""Mutated requests: no 5xx, no hang, and limited memory."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import ItkSnap

WIRE = Path(__file__).parents[2] / "wire"
RECORDED_SESSION = b"259d0249-67e6-4234-8c6b-90ea06cd2270"
REQUESTS = [path.read_bytes() for path in sorted(WIRE.glob("*.request"))]


@pytest.fixture(scope="module")
def target() -> Iterator[tuple[LiveServer, bytes]]:
    with serving(stand_in=True, budget=64 << 20) as server:
        yield server, ItkSnap(server.port).start().encode()


@st.composite
def mutated_requests(draw: st.DrawFn) -> bytes:
    """Draw a recorded request with some bytes changed, cut out, repeated or inserted; in most, only in the body."""
    request = bytearray(draw(st.sampled_from(REQUESTS)))
    body = request.find(b"\r\n\r\n") + 4
    first = body if body < len(request) and draw(st.booleans()) else 0
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(first, max(first, len(request) - 1)))
        match draw(st.sampled_from(["change", "cut", "repeat", "insert"])):
            case "change" if at < len(request):
                request[at] = draw(st.integers(0, 255))
            case "cut":
                del request[at : at + draw(st.integers(1, 40))]
            case "repeat":
                request[at:at] = request[at : at + draw(st.integers(1, 40))]
            case "insert":
                request[at:at] = draw(st.binary(min_size=1, max_size=20))
    return bytes(request)


def send(port: int, request: bytes) -> bytes:
    """Send the bytes, close the sending side, and return what the server sends."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        answer = b""
        try:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                answer += data
        except ConnectionError:
            pass
        return answer


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request_=mutated_requests())
def test_no_mutated_request_breaks_the_server(target: tuple[LiveServer, bytes], request_: bytes) -> None:
    """Every answer has a status below 500, and the server goes on answering."""
    server, session = target
    answer = send(server.port, request_.replace(RECORDED_SESSION, session))
    if answer:
        status = int(answer.split(b" ", 2)[1])
        assert status < 500, answer
    assert ItkSnap(server.port).get("/status").status == 200
