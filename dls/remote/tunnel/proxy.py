"""Forwards requests from the local port to the server, and the responses back.

A request that arrives while the link is lost waits for it. A request whose connection breaks is sent again where that
does no harm: it changes nothing, or the server knows it by its name and applies it only once.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
from collections.abc import Callable

import h11

from dls.contract import REFUSALS
from dls.errors import LinkError
from dls.remote.progress import UploadProgress
from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.tunnel.body_memory import BodyMemory
from dls.remote.tunnel.downstream import (
    Body,
    ClientConnection,
    ClientDisconnected,
    ClientTooSlow,
    HeadTooLarge,
)
from dls.remote.tunnel.headers import (
    build_request_headers,
    build_response,
    encode_error,
    is_status,
)
from dls.remote.tunnel.link import Link, LinkState
from dls.remote.tunnel.local_secret import is_authorized
from dls.remote.tunnel.replay import is_repeatable
from dls.remote.tunnel.status_polls import StatusPolls
from dls.remote.tunnel.unshown_refusals import UnshownRefusals
from dls.remote.tunnel.uploads import ImageIsHeld, Outgoing, Uploads
from dls.remote.tunnel.upstream import READ_ALL, UpstreamLost, send_request

WAIT_SECONDS = 60.0
"""Seconds that a request waits for a lost link."""
MAX_RETRIES = 4
"""Maximum number of times that a request is sent again: the request itself may be what crashes the server."""
MAX_BUFFERED_RESPONSE = 4 << 20
"""Size in bytes up to which a response is sent on only when it is complete; masks are smaller."""
MAX_CLIENTS = 128
"""Beyond this number the oldest connection without a request is closed; if there is none, a new one gets 503."""

SECRET_NEEDED = (
    "The local port needs its secret. Copy the Server field as dls connect printed it: snap:SECRET@localhost."  # noqa: S105
)

log = logging.getLogger("dls.forward")


class Proxy:
    """Answers the connections to the local port; with a secret, only those who know it.

    `show` is called with what ITK-SNAP does not show of a refused prompt, and `show_upload` with how far the upload of
    an image is, in the thread of its connection.
    """

    def __init__(
        self,
        link: Link,
        timeout: float = WAIT_SECONDS,
        secret: str | None = None,
        show: Callable[[str], None] = lambda text: None,
        show_upload: Callable[[UploadProgress], None] = lambda progress: None,
    ) -> None:
        self.secret = secret
        """The secret of the local port; None where every user of this computer may use it."""
        self._link = link
        self._timeout = timeout
        self._polls = StatusPolls(link)
        self._refusals = UnshownRefusals(show)
        self._uploads = Uploads(link, timeout, show_upload)
        self._memory = BodyMemory()
        self._clients: dict[ClientConnection, None] = {}
        """The connections, the oldest first."""
        self._lock = threading.Lock()

    def serve(self, sock: socket.socket) -> None:
        """Answer the requests of one connection, until the client sends no more."""
        client = ClientConnection(sock, self._memory)
        if not self._admit(client):
            client.refuse(*encode_error(503, "The local port has too many connections. Try again."))
            return
        try:
            self._serve_all(client)
        finally:
            with self._lock:
                self._clients.pop(client, None)

    def _admit(self, client: ClientConnection) -> bool:
        """Take the connection, in the place of an idle one where there are too many; False where there is no place."""
        with self._lock:
            if len(self._clients) >= MAX_CLIENTS:
                idle = next((each for each in self._clients if each.is_idle), None)
                if idle is None:
                    return False
                idle.disconnect()
                del self._clients[idle]
            self._clients[client] = None
            return True

    def _serve_all(self, client: ClientConnection) -> None:
        try:
            while self._serve_next(client):
                pass
        except ClientDisconnected:
            pass
        except ClientTooSlow:
            client.refuse(*encode_error(408, REFUSALS[408]))
        except HeadTooLarge:
            client.refuse(*encode_error(431, REFUSALS[431]))
        except h11.RemoteProtocolError as error:
            status = 431 if error.error_status_hint == 431 else 400
            client.refuse(*encode_error(status, REFUSALS[status]))

    def _serve_next(self, client: ClientConnection) -> bool:
        received = client.next_request()
        if received is None:
            return False
        request, body = received
        try:
            if self.secret is not None and not is_authorized(request.headers.raw_items(), self.secret):
                client.refuse(*encode_error(401, SECRET_NEEDED))
                return False
            self._answer(client, request, body)
            if not body.is_complete:
                client.linger()
        finally:
            if not body.is_complete:
                client.stop_reading()
            body.release()
        return client.keep_alive(body)

    def _answer(self, client: ClientConnection, request: h11.Request, body: Body) -> None:
        if is_status(request.method, request.target):
            client.send_response(*self._polls.answer(request))
            return
        try:
            self._exchange(client, request, body)
        except LinkError as error:
            closed = self._link.state is LinkState.CLOSED
            advice = "Start dls connect again." if closed else "Try again when it is back."
            client.send_response(*encode_error(503, f"{error.message} {advice}"))
        except UpstreamLost:
            message = "The connection was lost in the middle of this request. Try again."
            client.send_response(*encode_error(502, message))

    def _exchange(self, client: ClientConnection, request: h11.Request, body: Body) -> None:
        """Send a request to the server and its response to the client; raises LinkError and UpstreamLost."""
        name = secrets.token_hex(8)
        with self._uploads.outgoing(request, body, name) as outgoing:
            for attempt in range(MAX_RETRIES + 1):
                try:
                    self._attempt(client, request, body, outgoing, is_retry=attempt > 0)
                    return
                except ImageIsHeld:
                    log.debug("the host has this image")
                except UpstreamLost:
                    log.warning("a request was cut")
                    self._link.suspect()
                    if not (is_repeatable(request.method, request.target) and body.is_replayable):
                        raise
        raise UpstreamLost

    def _attempt(
        self, client: ClientConnection, request: h11.Request, body: Body, outgoing: Outgoing, *, is_retry: bool
    ) -> None:
        """Send the request once, without what the host holds of it; raises LinkError, UpstreamLost and ImageIsHeld."""
        if (answered := outgoing.send_less(is_retry=is_retry)) is not None:
            response, answer = answered
            closes = not body.is_complete
            client.send_response(build_response(response, len(answer), closes=closes), answer)
            return
        headers = build_request_headers(request.headers.raw_items(), outgoing.name, is_retry=is_retry)
        with contextlib.closing(self._link.open_channel(self._timeout)) as channel:
            upstream = send_request(channel, request.method, request.target, headers, outgoing.pieces())
            status, answer = _forward_response(upstream, channel, client, body)
        outgoing.is_done = status == 200
        self._refusals.add(request.target, status, answer)


def _forward_response(
    upstream: h11.Connection, channel: Channel, client: ClientConnection, request_body: Body
) -> tuple[int, bytes]:
    """Send the response on when it is complete, so that the request can be repeated if the channel breaks.

    A larger one is passed on as it comes, because a host could answer without end. Returns its status and body, which
    is left out where it is large.
    """
    response: h11.Response | None = None
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            event = upstream.next_event()
            if event is h11.NEED_DATA:
                upstream.receive_data(channel.recv(READ_ALL))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data) and response is not None:
                parts.append(bytes(event.data))
                size += len(event.data)
                if size > MAX_BUFFERED_RESPONSE:
                    client.send(build_response(response), *(h11.Data(data=part) for part in parts))
                    parts.clear()
                    _stream_response(upstream, channel, client)
                    return response.status_code, b""
            elif isinstance(event, h11.EndOfMessage) and response is not None:
                body = b"".join(parts)
                client.send_response(build_response(response, size, closes=not request_body.is_complete), body)
                return response.status_code, body
            elif not isinstance(event, h11.InformationalResponse):
                raise UpstreamLost
    except (ChannelError, h11.RemoteProtocolError):
        raise UpstreamLost from None


def _stream_response(upstream: h11.Connection, channel: Channel, client: ClientConnection) -> None:
    """Send the rest of a response as it arrives; if the channel breaks, the client's connection ends too."""
    try:
        while True:
            event = upstream.next_event()
            if event is h11.NEED_DATA:
                upstream.receive_data(channel.recv(READ_ALL))
            elif isinstance(event, h11.Data | h11.EndOfMessage):
                client.send(event)
                if isinstance(event, h11.EndOfMessage):
                    return
            else:
                raise ClientDisconnected
    except (ChannelError, h11.RemoteProtocolError):
        raise ClientDisconnected from None
