"""Files over HTTPS, from a real index of the tests' own, and from one that cuts."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.errors import TargetError
from dls.remote.parcel.download import Downloader
from dls.remote.parcel.uv import FetchError
from tests.support import package_index
from tests.support.package_index import Index

DATA = b"".join(hashlib.sha512(str(number).encode()).digest() for number in range(30_000))
DIGEST = hashlib.sha256(DATA).hexdigest()
NAME = "big-1.0.tar.gz"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / NAME).write_bytes(DATA)
    with package_index.running(tmp_path, tmp_path / "served", credentials="ann:s3cret") as running:
        yield running


def file_url(index: Index, login: str = "") -> str:
    return f"https://{login}localhost:{index.port}/files/{NAME}"


def test_a_file_and_the_rest_of_one(index: Index, tmp_path: Path) -> None:
    """A whole file comes, and of one that was cut only the rest; credentials are those of the index for its host."""
    downloader = Downloader(ca_bundle=index.ca, environment={"UV_INDEX": f"own={index.url}"})
    path = tmp_path / NAME
    assert downloader.fetch(file_url(index), path, DIGEST) == DIGEST and path.read_bytes() == DATA
    path.unlink()
    path.with_name(f"{NAME}.part").write_bytes(DATA[:1_500_000])
    before, counted = index.bytes_sent, list[int]()
    downloader.fetch(file_url(index), path, DIGEST, counted.append)
    assert path.read_bytes() == DATA and index.bytes_sent - before == len(DATA) - 1_500_000
    assert sum(counted) == len(DATA) and not path.with_name(f"{NAME}.part").exists()


def test_a_part_that_is_wrong_is_fetched_anew(index: Index, tmp_path: Path) -> None:
    """Wrong bytes of an earlier attempt are noticed and removed, so that the next attempt begins at the start."""
    downloader = Downloader(ca_bundle=index.ca)
    url, path = file_url(index, "ann:s3cret@"), tmp_path / NAME
    path.with_name(f"{NAME}.part").write_bytes(b"x" * 1000)
    with pytest.raises(FetchError, match="is not that file: its SHA-256 differs"):
        downloader.fetch(url, path, DIGEST)
    assert downloader.fetch(url, path, DIGEST) == DIGEST
    path.unlink()
    path.with_name(f"{NAME}.part").write_bytes(DATA)  # complete, but not moved to its place
    assert downloader.fetch(url, path, DIGEST) == DIGEST


def test_refusals(index: Index, tmp_path: Path) -> None:
    """A refusal, an unknown authority and bad certificates end in one sentence each, without the password."""
    trusting = Downloader(ca_bundle=index.ca, environment={"NETRC": "/dev/null"})
    cases = [
        (trusting, file_url(index), "is refused: 401"),
        (trusting, file_url(index, "ann:s3cret@").replace(NAME, "none"), "is refused: 404"),
        (Downloader(environment={}), file_url(index, "ann:s3cret@"), "certificate of localhost is not trusted"),
    ]
    for downloader, url, said in cases:
        with pytest.raises(FetchError, match=said) as caught:
            downloader.fetch(url, tmp_path / NAME, DIGEST)
        assert "s3cret" not in caught.value.message + caught.value.hint and "ann" not in caught.value.message
    with pytest.raises(TargetError, match="can't be used"):
        Downloader(ca_bundle=tmp_path / "none.pem")


def test_a_file_of_this_computer(tmp_path: Path) -> None:
    """An index in a folder is read from there."""
    (tmp_path / "a b").write_bytes(DATA)
    for location in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri()):
        assert Downloader().fetch(location, tmp_path / NAME, DIGEST) == DIGEST


@pytest.mark.parametrize("resumes", [True, False], ids=["resumes", "sends all again"])
def test_a_connection_that_is_cut(tmp_path: Path, resumes: bool) -> None:
    """A download that is cut goes on by itself where it was; an index that can't do that is taken at what it sends."""
    asked: list[str] = []

    class Cutting(http.server.BaseHTTPRequestHandler):
        def log_message(self, *anything: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.headers.get("Range", ""))
            start = int(asked[-1][6:-1]) if asked[-1] and resumes else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(DATA) - start))
            self.end_headers()
            self.wfile.write(DATA[start:] if len(asked) > 1 else DATA[:600_000])
            if len(asked) == 1:
                self.connection.shutdown(socket.SHUT_RDWR)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cutting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    counted: list[int] = []
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/x"
        assert Downloader(environment={}).fetch(url, tmp_path / NAME, DIGEST, counted.append) == DIGEST
    finally:
        server.shutdown()
        server.server_close()
    assert asked[0] == "" and asked[1].startswith("bytes=") and len(asked) == 2
    assert sum(counted) == len(DATA)
