"""Answers the requests for `/status` that arrive at the local port.

ITK-SNAP polls `/status` every ten seconds. A poll that fails makes it forget the server's models, and its next click
fails without being sent; a poll that hangs holds its clicks back. So a poll is answered within STATUS_SECONDS, and
with 200 for as long as a click would be held until it can be answered.
"""

from __future__ import annotations

import contextlib
import queue
import secrets
import threading
import time

import h11

from dls.errors import DlsError
from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.tunnel.headers import build_response, build_status_headers, encode_error, encode_response
from dls.remote.tunnel.link import Link, LinkState

STATUS_SECONDS = 1.0
"""Seconds that the server may take to answer a poll; after that the local port answers it."""
MAX_ASKING = 8
"""Number of polls that are asked of the server at a time; those beyond are answered by the local port."""
MAX_STATUS_BYTES = 65536
"""Size of an answer beyond which it is none."""

Answer = tuple[h11.Response, bytes]


class StatusPolls:
    """Passes polls on to the server, and answers them itself while the server does not."""

    def __init__(self, link: Link, seconds: float = STATUS_SECONDS) -> None:
        self._link = link
        self._seconds = seconds
        self._asking = threading.BoundedSemaphore(MAX_ASKING)

    def answer(self, request: h11.Request) -> Answer:
        """Return the server's answer, or else our own: 200 unless the link is closed for good."""
        answer = self._ask(request) if self._link.state is LinkState.OPEN else None
        return answer or self._own_answer()

    def _own_answer(self) -> Answer:
        """Return what the server says when all is well, as it said it last."""
        if self._link.state is LinkState.CLOSED:
            return encode_error(503, self._link.reason)
        return encode_response(200, {"status": "ok", "version": self._link.endpoint.version})

    def _ask(self, request: h11.Request) -> Answer | None:
        """Ask the server in a thread, because opening a channel and sending can take as long as the link likes."""
        if not self._asking.acquire(blocking=False):
            return None
        answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        deadline = time.monotonic() + self._seconds

        def ask() -> None:
            try:
                answers.put(self._exchange(request, deadline))
            finally:
                self._asking.release()

        threading.Thread(target=ask, name="dls-poll", daemon=True).start()
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=self._seconds)
        self._link.suspect()
        return None

    def _exchange(self, request: h11.Request, deadline: float) -> Answer | None:
        headers = build_status_headers(request.headers.raw_items(), secrets.token_hex(8))
        upstream = h11.Connection(h11.CLIENT)
        head = upstream.send(h11.Request(method=request.method, target=request.target, headers=headers)) or b""
        try:
            with contextlib.closing(self._link.open_channel(0.0)) as channel:
                channel.settimeout(self._seconds)
                channel.sendall(head + (upstream.send(h11.EndOfMessage()) or b""))
                return _read_answer(upstream, channel, deadline)
        except (DlsError, h11.RemoteProtocolError):
            self._link.suspect()
            return None


def _read_answer(upstream: h11.Connection, channel: Channel, deadline: float) -> Answer | None:
    """Return the whole answer, or None where it comes too late or is too large; raises ChannelError."""
    response: h11.Response | None = None
    body = b""
    while len(body) <= MAX_STATUS_BYTES and time.monotonic() < deadline:
        event = upstream.next_event()
        if event is h11.NEED_DATA:
            upstream.receive_data(channel.recv(MAX_STATUS_BYTES))
        elif isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage) and response is not None:
            return build_response(response, len(body)), body
        elif not isinstance(event, h11.InformationalResponse):
            raise ChannelError("The server gave no answer.")
    return None
