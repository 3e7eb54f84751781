"""The recorded requests of the real client, replayed byte for byte."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import ItkSnap, unpacked

WIRE = Path(__file__).parents[2] / "wire"
RECORDED_SESSION = b"259d0249-67e6-4234-8c6b-90ea06cd2270"
SHAPE = (12, 20, 24)


@pytest.fixture(scope="module")
def stand_in() -> object:
    with serving(stand_in=True) as server:
        yield server


def replay(port: int, request: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Send the bytes on a connection of their own and return status line, headers and body."""
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


def recorded(name: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Return a recorded request, and the status line, the head and the body of upstream's answer."""
    [request] = WIRE.glob(f"{name}*.request")
    answer = request.with_suffix(".upstream-response").read_bytes()
    head, _, body = answer.partition(b"\r\n\r\n")
    return request.read_bytes(), head.split(b"\r\n")[0], head, body


def test_the_whole_recorded_session(stand_in: LiveServer) -> None:
    """Every recorded request gets upstream's status, header names and keys; masks have the image's size."""
    session = b""
    for path in sorted(WIRE.glob("*.request")):
        name = path.name[:3]
        request, upstream_status, upstream_head, upstream_body = recorded(name)
        status, headers, body = replay(stand_in.port, request.replace(RECORDED_SESSION, session or RECORDED_SESSION))
        if name == "15-":
            assert status == b"HTTP/1.1 404 Not Found"  # upstream says 200, at which ITK-SNAP can crash
            continue
        assert status == upstream_status, (path.name, body)
        assert {line.split(b":")[0].decode() for line in upstream_head.split(b"\r\n")[1:]} == set(headers)
        assert headers["content-type"] == "application/json"
        said, upstream_said = json.loads(body), json.loads(upstream_body)
        assert list(said) == list(upstream_said)
        if name == "03-":
            session = said["session_id"].encode()
        elif "result" in said:
            assert unpacked(said["result"], SHAPE).shape == SHAPE
        elif name not in ("02-",):
            assert body == upstream_body


def test_models_are_listed_as_upstream_lists_them(stand_in: LiveServer) -> None:
    """Keys and their order are upstream's; the stand-in answers to nnInteractive's name only because it is asked to."""
    *_, upstream = recorded("02-")
    said = ItkSnap(stand_in.port).get("/v2/models").json["models"]
    assert [list(model) for model in said] == [list(json.loads(upstream)["models"][0])] * 2
    assert [model["id"] for model in said] == ["region", "nnInteractive"]
    with serving() as honest:
        assert [model["id"] for model in ItkSnap(honest.port).get("/v2/models").json["models"]] == ["region"]


def test_the_version_is_one_that_std_stoi_can_read(live: LiveServer) -> None:
    """ITK-SNAP does not catch what std::stoi throws."""
    version = ItkSnap(live.port).get("/status").json["version"]
    assert re.fullmatch(r"\d+(\.\d+)*", version)
    assert tuple(map(int, version.split("."))) >= (0, 1, 2)
