"""Requests from the local port to the server and answers back, whatever the link does meanwhile.

A request that comes while the link is lost waits for it. One that is cut in the middle is sent again when that can do
no harm: it changes nothing, or the server knows it by its name and does not apply it twice.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket

import h11

from dls.contract import ServerState
from dls.errors import LinkError
from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.tunnel import headers as http_headers
from dls.remote.tunnel.downstream import Body, ClientConnection, ClientDisconnected
from dls.remote.tunnel.link import Link, LinkState

WAIT_SECONDS = 60.0
"""How long a request waits for a link that is lost."""
MOST_REPEATS = 4
"""Of a request that is cut again and again: it may be what ends the server."""
MOST_ANSWERED = 4 << 20
"""Bytes of an answer that is passed on only when it is whole; masks are smaller."""
ALL = 1 << 24
"""Of what a channel has: a part would cost it a shift of all the rest, at each read."""

log = logging.getLogger("dls.forward")


class UpstreamLost(Exception):
    """The way was lost in the middle of a request."""


class Proxy:
    """Answers the connections to the local port."""

    def __init__(self, link: Link, wait: float = WAIT_SECONDS) -> None:
        self._link = link
        self._wait = wait

    def serve(self, sock: socket.socket) -> None:
        """Answer the requests of one connection, until the client has no more."""
        near = ClientConnection(sock)
        with contextlib.suppress(ClientDisconnected):
            try:
                while self._serve_next(near):
                    pass
            except h11.RemoteProtocolError:
                if near.can_be_answered:
                    near.answer(*http_headers.refusal(400, "This is not an HTTP request."))

    def _serve_next(self, near: ClientConnection) -> bool:
        asked = near.next_request()
        if asked is None:
            return False
        request, body = asked
        try:
            self._answer(near, request, body)
        finally:
            if not body.is_whole:
                near.read_no_more()
        return near.keep_alive(body)

    def _answer(self, near: ClientConnection, request: h11.Request, body: Body) -> None:
        only_asks = http_headers.is_status(request.method, request.target)
        try:
            self._exchange(near, request, body, wait=0.0 if only_asks else self._wait)
        except LinkError as error:
            refusal = http_headers.refusal(503, f"{error.message} Try again when it is back.")
            near.answer(*(self._status_meanwhile() if only_asks else refusal))
        except UpstreamLost:
            message = "The connection was lost in the middle of this request. Try again."
            near.answer(*http_headers.refusal(502, message))

    def _status_meanwhile(self) -> tuple[h11.Response, bytes]:
        """Answer at once: ITK-SNAP would hang with the question; it shows a server that refuses as not connected."""
        if self._link.way is LinkState.ASLEEP:  # the server is brought back when it is needed
            return http_headers.answer(200, {"status": "ok", "version": self._link.end.version})
        return http_headers.refusal(503, self._link.why or "The server does not take requests.")

    def _exchange(self, near: ClientConnection, request: h11.Request, body: Body, wait: float) -> None:
        """Ask the server and pass its answer on; raises LinkError when there is no way to it, and Cut."""
        name = secrets.token_hex(8)
        for repeat in range(MOST_REPEATS + 1):
            channel = self._link.take(wait)
            try:
                with contextlib.closing(channel):
                    far = self._ask(channel, body, request, name, again=repeat > 0)
                    _pass_on(far, channel, near)
                return
            except UpstreamLost:
                log.warning("a request was cut")
                self._link.doubt()
                if not (http_headers.may_repeat(request.method, request.target) and body.can_repeat):
                    raise
        raise UpstreamLost

    def _ask(self, channel: Channel, body: Body, request: h11.Request, name: str, *, again: bool) -> h11.Connection:
        """Send the request over a channel."""
        far = h11.Connection(h11.CLIENT)
        headers = http_headers.forwarded(
            request.headers.raw_items(), name, credentials(self._link.end.state), again=again
        )
        head = far.send(h11.Request(method=request.method, target=request.target, headers=headers))
        try:
            channel.sendall(head or b"")
            for piece in body.pieces():
                channel.sendall(piece)
        except ChannelError:
            log.debug("the rest of a request was not taken")  # it may have been answered already: refused
        return far


def _pass_on(far: h11.Connection, channel: Channel, near: ClientConnection) -> None:
    """Pass an answer on: held until it is whole, so that it can be asked for again, unless it is very large."""
    response: h11.Response | None = None
    held: list[bytes] = []
    size = 0
    try:
        while True:
            event = far.next_event()
            if event is h11.NEED_DATA:
                far.receive_data(channel.recv(ALL))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data) and response is not None:
                held.append(bytes(event.data))
                size += len(event.data)
                if size > MOST_ANSWERED and http_headers.size(response.headers.raw_items()) is not None:
                    near.send(_passed_on(response, size), *(h11.Data(data=part) for part in held))
                    _stream(far, channel, near)
                    return
            elif isinstance(event, h11.EndOfMessage) and response is not None:
                near.answer(_passed_on(response, size), b"".join(held))
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise UpstreamLost
    except (ChannelError, h11.RemoteProtocolError):
        raise UpstreamLost from None


def _stream(far: h11.Connection, channel: Channel, near: ClientConnection) -> None:
    """Pass the rest of an answer on as it comes; when it is cut, the client's connection ends too."""
    try:
        while True:
            event = far.next_event()
            if event is h11.NEED_DATA:
                far.receive_data(channel.recv(ALL))
            elif isinstance(event, h11.Data | h11.EndOfMessage):
                near.send(event)
                if isinstance(event, h11.EndOfMessage):
                    return
            else:
                raise ClientDisconnected
    except (ChannelError, h11.RemoteProtocolError):
        raise ClientDisconnected from None


def _passed_on(response: h11.Response, size: int) -> h11.Response:
    headers = http_headers.answered(response.headers.raw_items())
    if http_headers.size(headers) is None:
        headers.append((b"content-length", str(size).encode()))
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)


def credentials(state: ServerState) -> str | None:
    """Return what the server wants to see on a port, which everybody on its host can reach; a socket is guarded."""
    return None if state.port is None else state.credentials
