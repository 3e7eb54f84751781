"""Requests from the local port to the server and answers back, whatever the link does meanwhile.

A request that comes while the link is lost waits for it. One that is cut in the middle is sent again when that can do
no harm: it changes nothing, or the server knows it by its name and does not apply it twice.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import h11
import paramiko

from dls.errors import LinkError
from dls.remote import requests
from dls.remote.link import Link, Way
from dls.remote.probe import ServerState

CHUNK = 256 * 1024
"""Bytes read at a time. With sshtunnel's own 16 KB, downloads were 2.6 times slower."""
WAIT_SECONDS = 60.0
"""How long a request waits for a link that is lost."""
MOST_REPEATS = 4
"""Of a request that is cut again and again: it may be what ends the server."""
MOST_HELD = 1 << 30
"""Bytes of a request's body that are held, to be sent again; larger ones are sent once."""
MOST_ANSWERED = 1 << 28
"""Bytes of an answer, which is passed on only when it is whole."""

log = logging.getLogger("dls.forward")


class Cut(Exception):
    """The way was lost in the middle of a request."""


class Gone(Exception):
    """The client went away."""


@dataclass
class Body:
    """A request's body, read from the client as it is sent on, and held in case it has to be sent again."""

    near: h11.Connection
    sock: socket.socket
    held: list[bytes] = field(default_factory=list)
    is_whole: bool = False
    size: int = 0

    @property
    def can_repeat(self) -> bool:
        """Whether all of it that was read is still there."""
        return self.size <= MOST_HELD

    def pieces(self) -> Iterator[bytes]:
        """Yield it from its beginning."""
        yield from self.held
        while not self.is_whole:
            if self.near.they_are_waiting_for_100_continue:
                go_on = self.near.send(h11.InformationalResponse(status_code=100, headers=[]))
                self.sock.sendall(go_on or b"")
            event = next_event(self.near, self.sock)
            if isinstance(event, h11.EndOfMessage):
                self.is_whole = True
            elif isinstance(event, h11.Data):
                piece = bytes(event.data)
                self.size += len(piece)
                if self.can_repeat:
                    self.held.append(piece)
                else:
                    self.held.clear()
                yield piece
            else:
                raise Gone


def next_event(near: h11.Connection, sock: socket.socket) -> object:
    """Return what the client says next; raises Gone when it says no more."""
    while True:
        event = near.next_event()
        if event is not h11.NEED_DATA:
            return event
        try:
            near.receive_data(sock.recv(CHUNK))
        except OSError:
            raise Gone from None


class Relay:
    """Answers the connections to the local port."""

    def __init__(self, link: Link, wait: float = WAIT_SECONDS) -> None:
        self._link = link
        self._wait = wait

    def serve(self, sock: socket.socket) -> None:
        """Answer the requests of one connection, until the client has no more."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        near = h11.Connection(h11.SERVER)
        with contextlib.suppress(Gone, OSError):
            try:
                while isinstance(request := next_event(near, sock), h11.Request):
                    self._answer(near, sock, request)
                    if near.our_state is not h11.DONE or near.their_state is not h11.DONE:
                        return
                    near.start_next_cycle()
            except h11.RemoteProtocolError:
                if near.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    self._send(near, sock, *requests.refusal(400, "This is not an HTTP request."))

    def _answer(self, near: h11.Connection, sock: socket.socket, request: h11.Request) -> None:
        only_asks = requests.is_status(request.method, request.target)
        try:
            answer = self._exchange(Body(near, sock), request, wait=0.0 if only_asks else self._wait)
        except LinkError as error:
            answer = requests.refusal(503, f"{error.message} Try again when it is back.")
            if only_asks:
                answer = self._status_meanwhile()
        except Cut:
            answer = requests.refusal(502, "The connection was lost in the middle of this request. Try again.")
        self._send(near, sock, *answer)

    def _status_meanwhile(self) -> tuple[h11.Response, bytes]:
        """Answer at once: ITK-SNAP would hang with the question; it shows a server that refuses as not connected."""
        if self._link.way is Way.ASLEEP:  # the server is brought back when it is needed
            return requests.answer(200, {"status": "ok", "version": self._link.end.version})
        return requests.refusal(503, self._link.why or "The server does not take requests.")

    def _send(self, near: h11.Connection, sock: socket.socket, response: h11.Response, body: bytes) -> None:
        parts = [near.send(response), near.send(h11.Data(data=body)) if body else b"", near.send(h11.EndOfMessage())]
        sock.sendall(b"".join(part or b"" for part in parts))

    def _exchange(self, body: Body, request: h11.Request, wait: float) -> tuple[h11.Response, bytes]:
        name = secrets.token_hex(8)
        for repeat in range(MOST_REPEATS + 1):
            channel = self._link.take(wait)
            try:
                with contextlib.closing(channel):
                    return self._over(channel, body, request, name, again=repeat > 0)
            except Cut:
                log.warning("a request was cut")
                self._link.doubt()
                if not (requests.may_repeat(request.method, request.target) and body.can_repeat):
                    raise
        raise Cut

    def _over(
        self, channel: paramiko.Channel, body: Body, request: h11.Request, name: str, *, again: bool
    ) -> tuple[h11.Response, bytes]:
        """Ask over one channel; raises Cut when there is no whole answer."""
        far = h11.Connection(h11.CLIENT)
        headers = requests.forwarded(request.headers.raw_items(), name, credentials(self._link.end.state), again=again)
        head = far.send(h11.Request(method=request.method, target=request.target, headers=headers))
        sent = head or b""
        try:
            for piece in body.pieces():
                channel.sendall(sent + (far.send(h11.Data(data=piece)) or b""))
                sent = b""
            channel.sendall(sent + (far.send(h11.EndOfMessage()) or b""))
        except (OSError, EOFError, paramiko.SSHException):
            log.debug("the rest of a request was not taken")  # it may have been answered already: refused
        return _answer_on(far, channel)


def _answer_on(far: h11.Connection, channel: paramiko.Channel) -> tuple[h11.Response, bytes]:
    response: h11.Response | None = None
    body: list[bytes] = []
    size = 0
    try:
        while True:
            event = far.next_event()
            if event is h11.NEED_DATA:
                far.receive_data(channel.recv(CHUNK))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
                size += len(event.data)
                if size > MOST_ANSWERED:
                    raise Cut
            elif isinstance(event, h11.EndOfMessage) and response is not None:
                return _passed_on(response, b"".join(body)), b"".join(body)
            elif not isinstance(event, h11.InformationalResponse):
                raise Cut
    except (OSError, EOFError, paramiko.SSHException, h11.RemoteProtocolError):
        raise Cut from None


def _passed_on(response: h11.Response, body: bytes) -> h11.Response:
    headers = requests.answered(response.headers.raw_items())
    if requests.size(headers) is None:
        headers.append((b"content-length", str(len(body)).encode()))
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)


def credentials(state: ServerState) -> str | None:
    """Return what the server wants to see on a port, which everybody on its host can reach; a socket is guarded."""
    if state.port is None:
        return None
    return base64.b64encode(f"snap:{state.secret}".encode()).decode()
