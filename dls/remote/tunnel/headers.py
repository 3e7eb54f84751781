"""Which requests may be sent again when they were cut, and what they look like on their way. No sockets, no threads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

import h11

from dls.contract import REQUEST_HEADER, RETRY_HEADER

REQUEST_NAME, RETRY_NAME = REQUEST_HEADER.encode(), RETRY_HEADER.encode()
HOP_HEADERS = (b"connection", b"keep-alive", b"proxy-connection", b"expect", b"upgrade", b"te", b"trailer")
"""Of one connection only (RFC 9110, section 7.6.1); `Expect` is answered here."""
OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")

Headers = Sequence[tuple[bytes, bytes]]

_READS = re.compile(rb"/(status|v2/models)")
# The server knows these by their names and applies none twice. A session that is started twice leaves one that nobody
# uses.
_NAMED = re.compile(
    rb"(/v2)?/(start_session(/[^/]*)?"
    rb"|(upload_raw|process_(point|scribble|lasso)_interaction|reset_interactions|end_session)/[^/]+)"
)


def may_repeat(method: bytes, target: bytes) -> bool:
    """Whether a request that was cut may be sent again: it changes nothing, or the server applies it once."""
    path = target.partition(b"?")[0]
    if _READS.fullmatch(path):
        return method in (b"GET", b"HEAD")
    return bool(_NAMED.fullmatch(path))


def is_status(method: bytes, target: bytes) -> bool:
    """Whether the request only asks whether the server is there."""
    return method == b"GET" and target.partition(b"?")[0] == b"/status"


def forwarded(headers: Headers, name: str, credentials: str | None, *, again: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers for the way to the host.

    `name` is the request's, `credentials` are shown for the user where the server wants them, but only to who asked
    for this computer by its own name: a web page can make its own name mean 127.0.0.1.
    """
    dropped = {*HOP_HEADERS, REQUEST_NAME.lower(), RETRY_NAME.lower()}
    if is_chunked(headers):
        dropped.add(b"content-length")
    if credentials is not None and is_local(_first(headers, b"host")):
        dropped.add(b"authorization")
    kept = [(key, value) for key, value in headers if key.lower() not in dropped]
    kept.append((REQUEST_NAME, name.encode()))
    if again:
        kept.append((RETRY_NAME, b"1"))
    if b"authorization" in dropped:
        kept.append((b"Authorization", b"Basic " + str(credentials).encode()))
    return kept


def answered(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer for the client; the bodies of answers are passed on whole."""
    return [(key, value) for key, value in headers if key.lower() not in (*HOP_HEADERS, b"transfer-encoding")]


def is_local(host: bytes) -> bool:
    """Whether a Host header means this computer by its own name."""
    name = host.decode("latin-1").lower()
    return re.sub(r":\d+$", "", name) in OWN_NAMES


def _first(headers: Headers, wanted: bytes) -> bytes:
    return next((value for key, value in headers if key.lower() == wanted), b"")


def is_chunked(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a body comes in chunks, whatever a length beside that says (RFC 9112, section 6.3)."""
    return any(key.lower() == b"transfer-encoding" for key, _ in headers)


def size(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the body's length where the headers say it."""
    for key, value in headers:
        if key.lower() == b"content-length" and value.isdigit():
            return int(value)
    return None


def answer(status: int, said: dict[str, str]) -> tuple[h11.Response, bytes]:
    """Return an answer of ours."""
    body = json.dumps(said, separators=(",", ":")).encode()
    headers = [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode())]
    return h11.Response(status_code=status, headers=headers), body


def refusal(status: int, message: str) -> tuple[h11.Response, bytes]:
    """Return a refusal of ours, in the form of the server's own; the connection ends with it."""
    response, body = answer(status, {"error": message})
    return h11.Response(status_code=status, headers=[*response.headers.raw_items(), (b"Connection", b"close")]), body
