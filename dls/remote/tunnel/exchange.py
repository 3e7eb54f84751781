"""Forwards the requests of ITK-SNAP from the local port to the server, and the responses back.

A request that arrives while the link is lost waits for it. A request whose connection breaks is sent again where that
does no harm: it changes nothing, or the server knows it by its name and applies it only once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import h11

from dls.remote.ssh.channel import Channel
from dls.remote.tunnel.downstream import LARGE_BODY, Body, ClientConnection, ClientDisconnected, SizedBody
from dls.remote.tunnel.headers import build_request_headers, build_response
from dls.remote.tunnel.link import Link
from dls.remote.tunnel.replay import is_repeatable
from dls.remote.tunnel.request_names import RequestNames
from dls.remote.tunnel.unshown_refusals import UnshownRefusals
from dls.remote.tunnel.uploads import ImageIsHeld, Outgoing, Uploads, Way
from dls.remote.tunnel.upstream import UpstreamLost, read_ahead, response_events, send_request

WAIT_SECONDS = 60.0
"""Seconds that a request waits for a lost link."""
MAX_RETRIES = 4
"""Maximum number of times that a request is sent again: the request itself may be what crashes the server."""
MAX_BUFFERED_RESPONSE = 4 << 20
"""Size in bytes up to which a response is sent on only when it is complete; masks are smaller."""

log = logging.getLogger("dls.forward")


class Exchanges:
    """Sends requests to the server and its responses to the clients."""

    def __init__(
        self, link: Link, names: RequestNames, uploads: Uploads, timeout: float, show: Callable[[str], None]
    ) -> None:
        self._link = link
        self._names = names
        self._uploads = uploads
        self._timeout = timeout
        self._refusals = UnshownRefusals(show)

    def forward(self, client: ClientConnection, request: h11.Request, body: Body) -> None:
        """Send a request to the server and its response to the client; raises LinkError and UpstreamLost."""
        if isinstance(body, SizedBody) and body.is_replayable and (body.size or 0) < LARGE_BODY:
            read_ahead(body)  # requests are numbered in the order in which they can be sent
        name = self._names.make()
        way = Way(
            lambda: self._link.open_channel(self._timeout),
            lambda is_retry: build_request_headers(request.headers.raw_items(), name, is_retry=is_retry),
        )
        with self._uploads.outgoing(request, body, name, way) as outgoing:
            for attempt in range(MAX_RETRIES + 1):
                try:
                    self._attempt(client, request, body, outgoing, way, is_retry=attempt > 0)
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
        self,
        client: ClientConnection,
        request: h11.Request,
        body: Body,
        outgoing: Outgoing,
        way: Way,
        *,
        is_retry: bool,
    ) -> None:
        """Send the request once, without what the host holds of it; raises LinkError, UpstreamLost and ImageIsHeld."""
        if (answered := outgoing.send_less(is_retry=is_retry)) is not None:
            response, answer = answered
            client.send_response(build_response(response, len(answer), closes=not body.is_complete), answer)
            return
        with contextlib.closing(way.open_channel()) as channel:
            upstream = send_request(channel, request, way.build_headers(is_retry), outgoing)
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
    events = response_events(upstream, channel)
    for event in events:
        if isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data) and response is not None:
            parts.append(bytes(event.data))
            size += len(event.data)
            if size > MAX_BUFFERED_RESPONSE:
                client.send(build_response(response), *(h11.Data(data=part) for part in parts))
                parts.clear()
                _stream_response(events, client)
                return response.status_code, b""
    assert response is not None, "h11 gives a response before its end"
    body = b"".join(parts)
    client.send_response(build_response(response, size, closes=not request_body.is_complete), body)
    return response.status_code, body


def _stream_response(events: Iterator[h11.Event], client: ClientConnection) -> None:
    """Send the rest of a response as it arrives; if the channel breaks, the client's connection ends too."""
    try:
        for event in events:
            client.send(event)
    except UpstreamLost:
        raise ClientDisconnected from None
