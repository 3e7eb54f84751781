"""A model hub on loopback over HTTPS, with a self-signed certificate, that answers like huggingface.co."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.server
import ipaddress
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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
    files: dict[str, bytes]
    cut_after: int | None = None
    """Number of bytes of a checkpoint after which the hub closes the connection; None never."""
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of each request."""

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


def certificate(folder: Path) -> Path:
    """Write a self-signed certificate for localhost and its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = folder / "hub.pem"
    file.write_bytes(key.private_bytes(encoding, private, serialization.NoEncryption()) + signed.public_bytes(encoding))
    return file


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
    folder: Path, files: dict[str, bytes], *, address: str = "127.0.0.1", port: int = 0, pem: Path | None = None
) -> Iterator[Hub]:
    """Serve the files as a repository until the block ends; `pem` holds another certificate than one for localhost."""
    pem = pem or certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    hub = Hub(0, pem, files)
    server = http.server.ThreadingHTTPServer((address, port), type("Handler", (Handler,), {"hub": hub}))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *anything: None  # type: ignore[method-assign]  # interrupted connections are expected
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
