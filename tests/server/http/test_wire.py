"""The recorded requests of the real client are replayed byte for byte."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import ItkSnap, unpacked

WIRE = Path(__file__).parents[2] / "wire"
RECORDED_SESSION = b"259d0249-67e6-4234-8c6b-90ea06cd2270"
SHAPE = (12, 20, 24)


@pytest.fixture(scope="module")
def stand_in() -> Iterator[LiveServer]:
    with serving(stand_in=True) as server:
        yield server


def replay(port: int, request: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Send the bytes on a new connection, and return status line, headers and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        while len(body) < int(headers["content-length"]):
            body += sock.recv(65536)
    return status.encode(), headers, body


def read_recording(name: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Return a recorded request, and the status line, head and body of upstream's answer."""
    [request] = WIRE.glob(f"{name}*.request")
    answer = request.with_suffix(".upstream-response").read_bytes()
    head, _, body = answer.partition(b"\r\n\r\n")
    return request.read_bytes(), head.split(b"\r\n")[0], head, body


def test_the_whole_recorded_session(stand_in: LiveServer) -> None:
    """Every recorded request gets upstream's status, header names and keys; masks have the image's size."""
    session = b""
    for path in sorted(WIRE.glob("*.request")):
        name = path.name[:3]
        request, upstream_status, upstream_head, upstream_body = read_recording(name)
        status, headers, body = replay(stand_in.port, request.replace(RECORDED_SESSION, session or RECORDED_SESSION))
        if name == "15-":
            assert status == b"HTTP/1.1 404 Not Found"  # upstream says 200, at which ITK-SNAP can crash
            continue
        assert status == upstream_status, (path.name, body)
        assert {line.split(b":")[0].decode() for line in upstream_head.split(b"\r\n")[1:]} == set(headers)
        assert headers["content-type"] == "application/json"
        fields = json.loads(body)
        assert list(fields) == list(json.loads(upstream_body))
        if name == "03-":
            session = fields["session_id"].encode()
        elif "result" in fields:
            assert unpacked(fields["result"], SHAPE).shape == SHAPE
        elif name not in ("02-",):
            assert body == upstream_body


def test_models_are_listed_as_upstream_lists_them(stand_in: LiveServer) -> None:
    """Keys and their order are upstream's; nnInteractive's name is listed only with the option for a stand-in."""
    *_, upstream = read_recording("02-")
    models = ItkSnap(stand_in.port).get("/v2/models").json["models"]
    assert [list(model) for model in models] == [list(json.loads(upstream)["models"][0])] * 2
    assert [model["id"] for model in models] == ["region", "nnInteractive"]
    with serving() as honest:
        assert [model["id"] for model in ItkSnap(honest.port).get("/v2/models").json["models"]] == ["region"]


def test_std_stoi_can_parse_the_version(live: LiveServer) -> None:
    """ITK-SNAP parses the version with std::stoi and does not catch its exceptions."""
    version = ItkSnap(live.port).get("/status").json["version"]
    assert re.fullmatch(r"\d+(\.\d+)*", version)
    assert tuple(map(int, version.split("."))) >= (0, 1, 2)
