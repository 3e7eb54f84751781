"""Requests to a segmentation server, each over a connection of its own, as ITK-SNAP sends them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from dls.contract import DEFAULT_PORT
from dls.credentials import USER
from dls.errors import ConnectError, LinkError, SegmentError, TargetError

TIMEOUT = 600
"""Seconds to wait for a response: on a CPU a prompt can take minutes, and so can an image over a slow link."""
END_SECONDS = 10
"""Seconds to wait for the answer to the end of a session: the server ends it all the same, after a running prompt."""
WAIT_SECONDS = 0.25
"""Seconds of one wait for an answer."""
BLOCK_BYTES = 256 << 10
"""Bytes of a body that are sent at a time."""

ReportSent = Callable[[int, int], None]
"""Called with the bytes of a body that were sent, and with all its bytes."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the credentials that it asks for."""

    port: int = 0
    host: str = "127.0.0.1"
    credentials: str = field(default="", repr=False)
    """`user:secret` as in ITK-SNAP's Server field; empty to send none."""
    uds: str = ""
    """Path of a Unix socket to use instead of a port."""
    tls: bool = False

    @classmethod
    def parse(cls, url: str, secret: str | None = None) -> Address:
        """Read `http://[USER:SECRET@]HOST[:PORT]`, without a port that of `dls connect`; raises TargetError."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            shown = url.rpartition("@")[2]  # never a secret
            raise TargetError(f"{shown!r} is no address of a server.", "Write it as http://localhost:8911.")
        if secret is None and parts.password:
            secret = unquote(parts.password)
        tls = parts.scheme == "https"
        credentials = f"{USER}:{secret}" if secret else ""
        return cls(port or (443 if tls else DEFAULT_PORT), parts.hostname, credentials, tls=tls)

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}" if not self.uds else "this computer"

    def open(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that is not opened yet."""
        if self.uds:
            return _UnixConnection(self.uds, timeout)
        kind = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=timeout)


class _UnixConnection(http.client.HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Response:
    """The answer to a request that was not refused."""

    data: bytes
    headers: dict[str, str]
    """By their names in lower case."""

    def json(self) -> Any:
        """Return the value of the body; raises SegmentError for a body that is no JSON."""
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            raise SegmentError(
                "The server's answer can't be read.", "Is that address one of a segmentation server?"
            ) from None


def request(
    address: Address,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    sent: ReportSent = lambda done, total: None,
    timeout: float = TIMEOUT,
) -> Response:
    """Send one request; raises ConnectError or LinkError without an answer, and SegmentError for a refusal."""
    said = {"Accept": "*/*", **(headers or {})}
    if address.credentials:
        said["Authorization"] = "Basic " + base64.b64encode(address.credentials.encode()).decode()
    connection = address.open(timeout)
    try:
        _connect(connection, address)
        status, response = _exchange(connection, method, path, body, said, sent)
    except (OSError, http.client.HTTPException) as error:
        raise LinkError(
            f"The server at {address} did not answer ({error or type(error).__name__}).", "Run the command again."
        ) from error
    finally:
        connection.close()
    if status != 200:
        raise SegmentError(_read_refusal(status, response.data), _hint_for(status), status=status)
    return response


def _connect(connection: http.client.HTTPConnection, address: Address) -> None:
    try:
        connection.connect()
    except OSError as error:
        if address.uds:
            raise ConnectError("The server on this computer has ended.", "Run the command again.") from error
        raise ConnectError(
            f"Nothing answers at {address} ({error.strerror or error}).",
            "Is `dls connect` or `dls serve` running, and is this its port?",
        ) from error


def _exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    sent: ReportSent,
) -> tuple[int, Response]:
    # A server that refuses a body before its end closes the connection: its answer is there all the same.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, ConnectionAbortedError):
        if method == "POST":
            headers["Content-Length"] = str(len(body))
        connection.request(method, path, _blocks(body, sent) if body else None, headers)
    response = get_response(connection)
    return response.status, Response(response.read(), {name.lower(): value for name, value in response.getheaders()})


def get_response(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    """Wait for the answer and return it, in short steps: on Windows Ctrl-C can't interrupt a socket that waits."""
    if connection.sock is not None:
        deadline = time.monotonic() + (connection.timeout or TIMEOUT)
        with selectors.DefaultSelector() as selector:
            selector.register(connection.sock, selectors.EVENT_READ)
            while not selector.select(WAIT_SECONDS):
                if time.monotonic() > deadline:
                    raise TimeoutError("timed out")
    return connection.getresponse()


def _blocks(body: bytes, sent: ReportSent) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(body), BLOCK_BYTES):
        sent(start, len(body))
        yield bytes(view[start : start + BLOCK_BYTES])
    sent(len(body), len(body))


def _read_refusal(status: int, data: bytes) -> str:
    """Return the sentence of a refusal: the server says it under `error` or, in nnInteractive's own, `detail`."""
    try:
        fields = json.loads(data)
        sentence = str(fields.get("error") or fields["detail"])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        sentence = f"status {status}"
    return f"The server refuses: {sentence[:500]}"


def _hint_for(status: int) -> str:
    if status in (401, 403):
        return "Give the secret with --secret-file, or in DLS_SECRET."
    return "The server was lost or is not ready; run the command again." if status in (502, 503, 504) else ""
