"""The request of a client of the loan's proxy (RFC 9110, section 9.3.6), and who may make which: pure, bytes only."""

from __future__ import annotations

from dataclasses import dataclass

import h11

from dls.credentials import carries_secret
from dls.remote.loan.names import Name, Names

HEAD_LIMIT = 16 << 10
"""Bytes that the head of a request may have."""
REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Refused(Exception):
    """A request that is answered with a status and one sentence; `asked` is the name that it wanted, where known."""

    def __init__(self, status: int, sentence: str, asked: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.asked = asked

    def answer(self) -> bytes:
        """Return the answer, after which the connection is closed."""
        body = f"{self.sentence}\n".encode()
        challenge = 'Proxy-Authenticate: Basic realm="dls"\r\n' if self.status == 407 else ""
        head = (
            f"HTTP/1.1 {self.status} {REASONS[self.status]}\r\n{challenge}Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True)
class ConnectRequest:
    """A request that may be granted: to which name and port, and what the client sent after it."""

    host: str
    port: int
    name: Name
    early: bytes = b""


class RequestReader:
    """Reads one request, fed to it in pieces."""

    def __init__(self, names: Names, secret: str) -> None:
        self._names = names
        self._secret = secret
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)

    def feed(self, data: bytes) -> ConnectRequest | None:
        """Return the request when it is complete; raises Refused for one that is not granted."""
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            status = 431 if error.error_status_hint == 431 else 400
            raise Refused(status, "This is no request to a proxy.") from None
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Request):
            raise Refused(400, "This is no request to a proxy.")
        return self._judge(event)

    def _judge(self, request: h11.Request) -> ConnectRequest:
        fields = [value for name, value in request.headers if name == b"proxy-authorization"]
        # Whoever has not the secret learns nothing more, neither from the answer nor from how long it takes.
        if len(fields) != 1 or not carries_secret(fields[0], self._secret):
            raise Refused(407, "The secret of this loan is missing or wrong.")
        target = request.target.decode("ascii", "replace")
        if request.method != b"CONNECT":
            raise Refused(403, "Only HTTPS is lent (the method CONNECT).", target)
        host, colon, port = target.rpartition(":")
        if not colon or not port.isdigit() or len(port) > 5:
            raise Refused(400, "The request names no host and port.")
        name = self._names.find(host, int(port))
        if name is None:
            raise Refused(403, f"{target} is not lent: this loan is for {self._names.describe()} only.", target)
        return ConnectRequest(host.lower().rstrip("."), int(port), name, self._connection.trailing_data[0])
