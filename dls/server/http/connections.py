"""uvicorn's HTTP protocol with limits: on a request's head, on silence, and on the number of connections."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dls.contract import BODY_SECONDS, HEAD_SECONDS, MAX_HEAD_BYTES, REFUSALS
from dls.server.http.refusals import describe

TRUSTED_IDLE_SECONDS = 600.0
"""Seconds that a trusted connection may stay silent: `dls connect` opens some ahead and uses them for 300 s.

A stranger's connection may stay silent for HEAD_SECONDS.
"""
MAX_CONNECTIONS = 1024
"""Beyond this number the oldest connection that is not at a request is closed; if there is none, a new one gets 503."""

REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
SENTENCES = {**REFUSALS, 503: "The server has too many connections. Try again."}


def refusal(status: int) -> bytes:
    """Return a whole answer that refuses a request before the application has seen it; it ends the connection."""
    body = json.dumps(describe(SENTENCES[status])).encode()
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class _HeadTooLarge(Exception):
    """Stops the parser."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection; `max_connections` is for all that share the server."""

    max_connections = MAX_CONNECTIONS
    head_seconds = HEAD_SECONDS
    trusted_idle_seconds = TRUSTED_IDLE_SECONDS
    body_seconds = BODY_SECONDS

    is_proven = False
    """Whether the client has proved on this connection that it knows the server's secret."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, closing an idle one or refusing this one when there are too many."""
        super().connection_made(transport)
        self.made_at = time.monotonic()
        # Whoever can open the Unix socket is the server's user; those on TCP may be anybody.
        self.is_trusted = self.is_proven or not isinstance(transport.get_extra_info("sockname"), tuple)
        self._head_bytes = 0
        self._in_head = True
        self._status = 400
        self._deadline = self.made_at + self._idle_seconds
        self._timer = self.loop.call_later(self._idle_seconds, self._check_time)
        if len(self.connections) > self.max_connections and not self._close_an_idle_one():
            self._refuse(503)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._timer.cancel()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _idle_seconds(self) -> float:
        return self.trusted_idle_seconds if self.is_trusted else self.head_seconds

    def _close_an_idle_one(self) -> bool:
        others = (other for other in self.connections if isinstance(other, LimitedProtocol) and other is not self)
        idle = [other for other in others if other.is_idle and not other.transport.is_closing()]
        if not idle:
            return False
        oldest = min(idle, key=lambda other: (other.is_trusted, other.made_at))
        oldest.transport.abort()
        self.connections.discard(oldest)
        return True

    def data_received(self, data: bytes) -> None:
        """Parse what came; a head that is too large is refused, whether it is whole or not.

        This replaces uvicorn's own method, which logs a warning for each malformed request.
        """
        self._unset_keepalive_if_required()
        if self._in_head:
            if self._head_bytes == 0:
                self._deadline = time.monotonic() + self.head_seconds
                self._rearm()
            self._head_bytes += len(data)
        else:
            self._deadline = time.monotonic() + self.body_seconds
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request is answered as if it had not asked for another protocol
        except httptools.HttpParserError:
            self._refuse(self._status)
            return
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431)

    def on_message_begin(self) -> None:
        """Begin to count a head."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._status = 431
            raise _HeadTooLarge
        self._in_head = False
        self._head_bytes = 0
        self._deadline = time.monotonic() + self.body_seconds
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for the next request's head, which may come before this request is answered."""
        super().on_message_complete()
        self._in_head = True
        self._head_bytes = 0

    def on_response_complete(self) -> None:
        """Give the client its time again: the answer may have taken longer than that."""
        super().on_response_complete()
        self._deadline = time.monotonic() + (self._idle_seconds if self._in_head else self.body_seconds)

    def _refuse(self, status: int) -> None:
        self.transport.write(refusal(status))
        self.transport.close()

    def _rearm(self) -> None:
        self._timer.cancel()
        self._timer = self.loop.call_later(max(0.0, self._deadline - time.monotonic()), self._check_time)

    def _check_time(self) -> None:
        if self.transport.is_closing():
            return
        left = self._deadline - time.monotonic()
        if self._is_waited_for():
            left = max(left, 1.0)
        if left > 0:
            self._timer = self.loop.call_later(left, self._check_time)
        elif self._in_head:
            # Silence before a head needs no answer.
            if self._head_bytes:
                self.transport.write(refusal(408))
            self.transport.close()
        else:
            self.transport.abort()

    def _is_waited_for(self) -> bool:
        """Whether it is the server that takes its time, because the client has sent all that it may send for now."""
        cycle = self.cycle
        if self.is_idle:
            return False
        return not cycle.more_body or cycle.waiting_for_100_continue or bool(cycle.body) or self.flow.read_paused


def limited_protocol(**limits: Any) -> type[LimitedProtocol]:
    """Return the protocol with other limits, for tests."""
    return type("Limited", (LimitedProtocol,), limits)
