"""A package index over HTTPS on loopback that serves the wheels of a folder, with a certificate authority of its own.

    with package_index.running(tmp_path, wheels) as index:
        index.url            # https://localhost:PORT/simple/, with credentials where the index asks for them
        index.ca             # the file to trust: SSL_CERT_FILE of uv, PIP_CERT of pip
        index.requests       # "GET /simple/click/" and the like, as they came

The folder `wheels` may have subfolders; its files whose names end with `.whl` or `.tar.gz` are served, and those that
are added later too. It answers PEP 691 (JSON) where the client asks for it and PEP 503 (HTML) otherwise, with hashes,
the Python that a wheel requires, and its metadata in a file of its own (PEP 658), so that uv and pip download no wheel
that they do not install.

`tiny_wheel` makes a wheel with one module. `download` fills a folder with real packages from the index that this
machine's pip is configured with, once for all tests of this machine. An index for a namespace of its own:
`running(…, address="10.9.0.1", port=443, names=["index.test"])`, with the names in that namespace's hosts file; with
`files_host` its files have another name than it.

A client of the index has to be kept from this machine's own settings: those in PIP_* and UV_*, in pip's configuration
(PIP_CONFIG_FILE=/dev/null), and in REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE, which pip prefers to PIP_CERT.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.parser import HeaderParser
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.support.authority import Authority
from tests.support.tls_server import serving

JSON = "application/vnd.pypi.simple.v1+json"
CACHE = Path("/var/tmp/dls-test-wheels")
"""Where `download` keeps what it has fetched."""


@dataclass
class Index:
    """A running index, and the requests that it got."""

    host: str
    port: int
    ca: Path
    wheels: Path
    credentials: str = ""
    """`user:password` that each request must carry; empty for none."""
    files_host: str = ""
    """Host name in the addresses of files; empty for addresses relative to the page's."""
    speaks_json: bool = True
    requests: list[str] = field(default_factory=list)
    """Method and path of each request."""
    finished: list[str] = field(default_factory=list)
    """Name of each file that was sent to its end."""
    bytes_sent: int = 0
    """Bytes of the bodies that were sent so far."""

    @property
    def url(self) -> str:
        """The index's address, with its credentials."""
        login = f"{self.credentials}@" if self.credentials else ""
        return f"https://{login}{self.host}{'' if self.port == 443 else f':{self.port}'}/simple/"

    def files(self) -> dict[str, Path]:
        """The files that are served, by their names."""
        found = [path for path in self.wheels.rglob("*") if path.name.endswith((".whl", ".tar.gz"))]
        return {path.name: path for path in sorted(found)}

    def projects(self) -> dict[str, list[Path]]:
        """The files of each project, by its normalised name."""
        projects: dict[str, list[Path]] = {}
        for name, path in self.files().items():
            projects.setdefault(project_of(name), []).append(path)
        return projects


def project_of(file: str) -> str:
    """Return the normalised name (PEP 503) of the project that a wheel or an sdist belongs to."""
    name = file.split("-")[0] if file.endswith(".whl") else file.removesuffix(".tar.gz").rpartition("-")[0]
    return re.sub(r"[-_.]+", "-", name).lower()


@lru_cache(maxsize=4096)
def _digest(path: Path, _modified: int) -> str:
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def digest(path: Path) -> str:
    """Return the file's SHA-256 in hexadecimal."""
    return _digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def metadata(path: Path) -> bytes:
    """Return a wheel's METADATA; empty for an sdist."""
    if path.suffix != ".whl":
        return b""
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        return archive.read(name)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers requests for a project's page, a file, or a wheel's metadata."""

    index: Index
    protocol_version = "HTTP/1.1"

    def log_message(self, *anything: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urllib.parse.unquote(self.path.split("?")[0])
        self.index.requests.append(f"{self.command} {path}")
        expected = "Basic " + base64.b64encode(self.index.credentials.encode()).decode()
        if self.index.credentials and self.headers.get("Authorization") != expected:
            self._send(401, b"", "text/plain", {"WWW-Authenticate": 'Basic realm="index"'})
        elif path == "/simple/":
            rows = [{"name": name} for name in self.index.projects()]
            self._page({"meta": {"api-version": "1.1"}, "projects": rows}, [f"{row['name']}/" for row in rows])
        elif found := re.fullmatch(r"/simple/([^/]+)/?", path):
            self._project(found[1])
        elif path.startswith("/files/"):
            self._file(path.removeprefix("/files/"))
        else:
            self._send(404, b"", "text/plain")

    def _project(self, name: str) -> None:
        paths = self.index.projects().get(name)
        if paths is None:
            self._send(404, b"", "text/plain")
            return
        rows = [self._row(path) for path in paths]
        value = {"meta": {"api-version": "1.1"}, "name": name, "files": rows, "versions": []}
        self._page(value, [f"{row['url']}#sha256={row['hashes']['sha256']}" for row in rows])

    def _row(self, path: Path) -> dict[str, Any]:
        port = "" if self.index.port == 443 else f":{self.index.port}"
        base = f"https://{self.index.files_host}{port}/files" if self.index.files_host else "/files"
        row: dict[str, Any] = {
            "filename": path.name,
            "url": f"{base}/{urllib.parse.quote(path.name)}",
            "hashes": {"sha256": digest(path)},
            "size": path.stat().st_size,
        }
        if text := metadata(path):
            row["core-metadata"] = {"sha256": hashlib.sha256(text).hexdigest()}
            if requires := HeaderParser().parsestr(text.decode()).get("Requires-Python"):
                row["requires-python"] = requires
        return row

    def _page(self, value: dict[str, Any], links: Sequence[str]) -> None:
        if self.index.speaks_json and JSON in self.headers.get("Accept", ""):
            self._send(200, json.dumps(value).encode(), JSON)
            return
        rows = [f'<a href="{html.escape(link)}">{link.split("#")[0].rpartition("/")[2]}</a><br>' for link in links]
        self._send(200, f"<!DOCTYPE html><html><body>{''.join(rows)}</body></html>".encode(), "text/html")

    def _file(self, name: str) -> None:
        path = self.index.files().get(name.removesuffix(".metadata"))
        if path is None:
            self._send(404, b"", "text/plain")
        elif name.endswith(".metadata"):
            self._send(200, metadata(path), "text/plain")
        else:
            self._stream(path)

    def _stream(self, path: Path) -> None:
        size = path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), min(size, int(found[2] or size - 1) + 1)) if found else (0, size)
        headers = {"Accept-Ranges": "bytes"}
        if found:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._head(206 if found else 200, end - start, "application/octet-stream", headers)
        if self.command == "HEAD":
            return
        with path.open("rb") as stream:
            stream.seek(start)
            while start < end and (piece := stream.read(min(1 << 18, end - start))):
                self.wfile.write(piece)
                self.index.bytes_sent += len(piece)
                start += len(piece)
        if start == size:
            self.index.finished.append(path.name)

    def _head(self, status: int, length: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(body), kind, headers or {})
        if self.command == "GET":
            self.wfile.write(body)
            self.index.bytes_sent += len(body)


@contextlib.contextmanager
def running(
    folder: Path,
    wheels: Path,
    *,
    names: Sequence[str] = ("localhost",),
    address: str = "127.0.0.1",
    port: int = 0,
    credentials: str = "",
    files_host: str = "",
    speaks_json: bool = True,
    authority: Authority | None = None,
) -> Iterator[Index]:
    """Serve the files below `wheels` until the block ends; `folder` gets the certificates.

    `names` are the index's own; the first one stands in its address. `authority` signs its certificate; by default a
    new one.
    """
    authority = authority or Authority(folder)
    pem = authority.sign([*names, *([files_host] if files_host else [])])
    index = Index(names[0], port, authority.certificate, wheels, credentials, files_host, speaks_json)
    with serving(type("Handler", (Handler,), {"index": index}), (address, port), pem) as index.port:
        yield index


def tiny_wheel(folder: Path, name: str, version: str = "1.0", *, requires: Sequence[str] = (), size: int = 0) -> Path:
    """Make a wheel with one module that has the name of its project, and `size` bytes of data that do not compress."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {one}" for one in requires)]
    data = b"".join(hashlib.sha512(f"{name} {block}".encode()).digest() for block in range(-(-size // 64)))
    files = {
        f"{module}.py": f"version = {version!r}\n".encode(),
        **({f"{module}_data.bin": data} if size else {}),
        f"{info}/METADATA": "\n".join([*lines, ""]).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: dls\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={_url_digest(data)},{len(data)}\n" for path, data in files.items())
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}.items():
            archive.writestr(file, data)
    return path


def _url_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def download(name: str, requirements: str) -> Path:
    """Return a folder with what pip downloads for the text of a requirements file; it is fetched once for each text.

    For instance `download("region", lock_files.read("region"))`.
    """
    key = hashlib.sha256(f"{sys.version}\n{requirements}".encode()).hexdigest()[:8]
    folder = CACHE / f"{name}-{key}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            part = CACHE / f".{name}-{key}"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            (part / "requirements.txt").write_text(requirements)
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(part), "--requirement"]
            subprocess.run([*command, str(part / "requirements.txt")], check=True, stdin=subprocess.DEVNULL)
            part.rename(folder)
    return folder
