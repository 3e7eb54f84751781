"""Answers the polls that arrive at the local port: `/status`, and what official clients ask to keep their lease.

ITK-SNAP polls `/status` every ten seconds. A poll that fails makes it forget the server's models, and its next click
fails without being sent; a poll that hangs holds its clicks back. An official client ends its heartbeats for good at
410, 503 or what is no JSON. So a poll is answered within POLL_SECONDS, and with 200 for as long as a click would be
held until it can be answered.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time

import h11

from dls.errors import DlsError
from dls.remote.ssh.channel import ChannelError
from dls.remote.tunnel.downstream import Body
from dls.remote.tunnel.headers import (
    Answer,
    build_bodiless_headers,
    build_request_headers,
    build_response,
    encode_error,
    encode_response,
)
from dls.remote.tunnel.lease_numbers import LeaseNumbers
from dls.remote.tunnel.link import Link, LinkState
from dls.remote.tunnel.official import HEALTHZ, HEARTBEAT, LEASE_STATUS, find_lease, path_of
from dls.remote.tunnel.upstream import UpstreamLost, read_answer

POLL_SECONDS = 1.0
"""Seconds that the server may take to answer a poll; after that the local port answers it."""
MAX_ASKING = 8
"""Number of polls that are asked of the server at a time; those beyond are answered by the local port."""
MAX_ANSWER_BYTES = 65536
"""Size of an answer beyond which it is none."""
MAX_BODY_BYTES = 4096
"""Size of a heartbeat's body beyond which it is refused; official clients send two bytes."""
STATUS = b"/status"
METHODS = {STATUS: b"GET", HEALTHZ: b"GET", LEASE_STATUS: b"GET", HEARTBEAT: b"POST"}
"""The polls, by their paths."""


def is_poll(request: h11.Request) -> bool:
    """Whether the request needs no running server."""
    return METHODS.get(path_of(request.target)) == request.method


class Polls:
    """Passes polls on to the server, and answers them itself while the server does not."""

    def __init__(self, link: Link, seconds: float = POLL_SECONDS) -> None:
        self._link = link
        self._seconds = seconds
        self._numbers = LeaseNumbers()
        self._asking = threading.BoundedSemaphore(MAX_ASKING)

    def answer(self, request: h11.Request, body: Body) -> Answer:
        """Return the server's answer, or else our own: 200 unless the link is closed for good.

        Raises ClientDisconnected where the body of a heartbeat does not come.
        """
        path, lease = path_of(request.target), find_lease(request.headers.raw_items())
        data = b""
        if request.method == b"POST":
            for chunk in body.chunks():
                data += chunk
                if len(data) > MAX_BODY_BYTES:
                    return encode_error(413, "This is too long for a heartbeat.")
        answer = self._ask(request, data) if self._link.state is LinkState.OPEN else None
        if answer is not None and (path == STATUS or self._numbers.learn(path, lease, *answer)):
            return answer
        return self._own_answer(path, lease)

    def _own_answer(self, path: bytes, lease: bytes) -> Answer:
        """Return what the server says when all is well, as it said it last."""
        if self._link.state is LinkState.CLOSED:
            return encode_error(503 if path == STATUS else 502, self._link.reason)
        if path == STATUS:
            return encode_response(200, {"status": "ok", "version": self._link.endpoint.version})
        return encode_response(200, {"ok": True} if path == HEALTHZ else self._numbers.recall(path, lease))

    def _ask(self, request: h11.Request, data: bytes) -> Answer | None:
        """Ask the server in a thread, because opening a channel and sending can take as long as the link likes."""
        if not self._asking.acquire(blocking=False):
            return None
        answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        deadline = time.monotonic() + self._seconds

        def ask() -> None:
            try:
                answers.put(self._exchange(request, data, deadline))
            finally:
                self._asking.release()

        threading.Thread(target=ask, name="dls-poll", daemon=True).start()
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=self._seconds)
        self._link.suspect()
        return None

    def _exchange(self, request: h11.Request, data: bytes, deadline: float) -> Answer | None:
        build = build_request_headers if data else build_bodiless_headers
        headers = build(request.headers.raw_items(), secrets.token_hex(8))

        def stop_when_late() -> None:
            if time.monotonic() > deadline:
                raise ChannelError("The server's answer came too late.")

        upstream = h11.Connection(h11.CLIENT)
        head = upstream.send(h11.Request(method=request.method, target=request.target, headers=headers)) or b""
        try:
            with contextlib.closing(self._link.open_channel(0.0)) as channel:
                channel.settimeout(self._seconds)
                channel.sendall(head + data)
                response, body = read_answer(upstream, channel, _check_size, stop_when_late)
                return build_response(response, len(body)), body
        except _NoAnswer:
            return None
        except (DlsError, UpstreamLost):
            self._link.suspect()
            return None


class _NoAnswer(Exception):
    """What the server sends is larger than an answer to a poll."""


def _check_size(size: int) -> None:
    if size > MAX_ANSWER_BYTES:
        raise _NoAnswer
