"""HTTP headers on both sides of the proxy, and its own answers. No sockets, no threads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import h11

from dls.contract import MISSED_HEADER, REQUEST_HEADER, RETRY_HEADER

REQUEST_NAME, RETRY_NAME, MISSED_NAME = REQUEST_HEADER.encode(), RETRY_HEADER.encode(), MISSED_HEADER.encode()
OUR_HEADERS = b"x-dls-"
"""Start of the names of our own headers, in lower case."""
HOP_HEADERS = (b"connection", b"keep-alive", b"proxy-connection", b"expect", b"upgrade", b"te", b"trailer")
"""Headers that hold for one connection only (RFC 9110, section 7.6.1); the proxy answers `Expect` itself."""

Headers = Sequence[tuple[bytes, bytes]]
Answer = tuple[h11.Response, bytes]
"""A whole response: its head and its body."""


def build_request_headers(
    headers: Headers, name: str, *, is_retry: bool = False, is_missing: bool = False
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a client's request as they are sent to the server.

    `name` identifies the request, and `is_missing` says that its client misses an earlier answer. The client's
    credentials are those of the local port, and end there: the channel itself proves who we are. So do headers of our
    own, which are for the host and its user alone.
    """
    dropped = {*HOP_HEADERS, b"authorization"}
    if is_chunked(headers):
        dropped.add(b"content-length")
    kept = [(key, value) for key, value in headers if key.lower() not in dropped]
    result = [(key, value) for key, value in kept if not key.lower().startswith(OUR_HEADERS)]
    if not any(key.lower() == b"host" for key, _ in headers):  # as clients of HTTP/1.0 may leave it out
        result.append((b"Host", b"localhost"))
    result.append((REQUEST_NAME, name.encode()))
    if is_retry:
        result.append((RETRY_NAME, b"1"))
    if is_missing:
        result.append((MISSED_NAME, b"1"))
    return result


def build_bodiless_headers(headers: Headers, name: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a client's request as they are sent to the server without the request's body."""
    body = (b"content-length", b"transfer-encoding")
    return [pair for pair in build_request_headers(headers, name) if pair[0].lower() not in body]


def leave_out(headers: Headers, size: int, left_out: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the headers of an upload that leaves something out, from those of the whole one.

    `size` is the number of bytes that are sent, and `left_out` the header that says what is not.
    """
    result = [pair for pair in headers if pair[0].lower() != b"content-length"]
    return [*result, (b"Content-Length", b"%d" % size), (left_out[0].encode(), left_out[1].encode())]


def build_response_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of a server's response as they are sent to the client, without the chunked encoding."""
    return [(key, value) for key, value in headers if key.lower() not in (*HOP_HEADERS, b"transfer-encoding")]


def build_response(response: h11.Response, size: int | None = None, *, closes: bool = False) -> h11.Response:
    """Return the server's response as it is sent to the client; one without a known size goes out in chunks.

    With `closes` it says that the connection ends after it, as when the request was not read to its end.
    """
    headers = build_response_headers(response.headers.raw_items())
    if size is not None and content_length(headers) is None:
        headers.append((b"content-length", str(size).encode()))
    if closes:
        headers.append((b"connection", b"close"))
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)


def is_chunked(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the body is sent in chunks; Content-Length is ignored then (RFC 9112, section 6.3)."""
    return any(key.lower() == b"transfer-encoding" for key, _ in headers)


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """Return the body's length in bytes; None where the headers do not say it."""
    for key, value in headers:
        if key.lower() == b"content-length" and value.isdigit():
            return int(value)
    return None


def encode_response(status: int, payload: Mapping[str, object], more: Headers = ()) -> Answer:
    """Build a JSON response of the proxy's own, with `more` headers."""
    body = json.dumps(payload, separators=(",", ":")).encode()
    headers = [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode()), *more]
    return h11.Response(status_code=status, headers=headers), body


def encode_error(status: int, message: str, more: Headers = ()) -> Answer:
    """Build an error response in the server's own format; it closes the client's connection.

    ITK-SNAP reads the sentence under `error`, the client of nnInteractive's own protocol under `detail`.
    """
    challenge = [(b"WWW-Authenticate", b'Basic realm="dls"')] if status == 401 else []
    return encode_response(
        status, {"error": message, "detail": message}, [*more, (b"Connection", b"close"), *challenge]
    )
