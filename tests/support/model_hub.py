"""A model hub over HTTPS on loopback, with a certificate authority of its own, that answers like huggingface.co."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.authority import Authority
from tests.support.tls_server import serving

REPOSITORY = "MIC-DKFZ/nnInteractive"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY = Path(__file__).parents[1] / "tiny_model" / "model"
TINY_NAME = "nnInteractive_tiny"


def tiny_files() -> dict[str, bytes]:
    """Return the files of a repository whose default model is the tiny one."""
    entry = {"id": TINY_NAME, "display_name": "Tiny", "path": TINY_NAME, "default": True}
    files = {"models.json": json.dumps({"schema_version": 1, "models": [entry]}).encode()}
    for path in TINY.rglob("*"):
        if path.is_file():
            files[f"{TINY_NAME}/{path.relative_to(TINY).as_posix()}"] = path.read_bytes()
    return files


@dataclass
class Hub:
    """The files that the hub serves, and the requests that it got."""

    port: int
    certificate: Path
    """The file to trust."""
    files: dict[str, bytes]
    cut_after: int | None = None
    """Number of bytes of a checkpoint after which the hub closes the connection; None never."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of each request."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers the four kinds of requests that a download makes."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *anything: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.split("?")[0]
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
            files = self.hub.files.items()
            rows = [{"type": "file", "path": name, "size": len(data), "oid": digest(data)} for name, data in files]
            self._json(rows)
        elif path.startswith(f"/api/models/{REPOSITORY}"):
            siblings = [{"rfilename": name} for name in self.hub.files]
            self._json({"id": REPOSITORY, "modelId": REPOSITORY, "sha": COMMIT, "siblings": siblings, "tags": []})
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            self._file(path.split("/", 5)[5])
        else:
            self.send_error(404)

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def _file(self, name: str) -> None:
        data = self.hub.files.get(name)
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{digest(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.hub.cut_after
        if cut is not None and name.endswith(".pth"):
            self.wfile.write(data[start : start + cut])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
        else:
            self.wfile.write(data[start:])


def digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextlib.contextmanager
def running(
    folder: Path,
    files: dict[str, bytes],
    *,
    names: Sequence[str] = ("localhost", "127.0.0.1"),
    address: str = "127.0.0.1",
    port: int = 0,
    authority: Authority | None = None,
) -> Iterator[Hub]:
    """Serve the files as a repository until the block ends; `folder` gets the certificates.

    `names` are the hub's own; `authority` signs its certificate, by default a new one.
    """
    authority = authority or Authority(folder)
    hub = Hub(port, authority.certificate, files)
    with serving(type("Handler", (Handler,), {"hub": hub}), (address, port), authority.sign(names)) as hub.port:
        yield hub
