"""The server's side of the proxy: requests as they are sent over a channel, and the parts of the responses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import h11

from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.tunnel.headers import Answer, Headers

PIECE_BYTES = 256 * 1024
"""Size of the pieces in which a body is sent; between two of them the server may have refused it."""
EARLY_ANSWER_PIECES = 4
"""Number of pieces that are sent whatever the server says meanwhile."""
READ_ALL = 1 << 24
"""Bytes read at a time. Read everything buffered: paramiko shifts the rest of its buffer at each partial read."""

MAX_ANSWER = 1 << 20
"""Largest answer in bytes to a question of our own, or to an upload."""

log = logging.getLogger("dls.forward")


class UpstreamLost(Exception):
    """The channel to the server broke in the middle of a request."""


class Chunks(Protocol):
    """What is sent as the body of a request."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the body from its beginning, as it is to be sent."""


def send_request(
    channel: Channel, request: h11.Request, headers: Headers, body: Chunks, on_piece: Callable[[], None] = lambda: None
) -> h11.Connection:
    """Send the request over a channel; a failure shows when the response is read.

    The server looks for the session before it reads a body. What is answered meanwhile is answered for good, so
    the rest of an image for a session that is gone is not sent over the link. `on_piece` is called before each piece of
    the body, and after the last one.
    """
    upstream = h11.Connection(h11.CLIENT)
    head = upstream.send(h11.Request(method=request.method, target=request.target, headers=list(headers)))
    try:
        channel.sendall(head or b"")
        for sent, piece in enumerate(cut_up(body.chunks())):
            # A short body is sent to its end, so that the client's next request on this connection is read.
            if sent >= EARLY_ANSWER_PIECES and channel.is_answered:
                log.debug("a request was answered before it was sent to its end")
                break
            on_piece()
            channel.sendall(piece)
        on_piece()
    except ChannelError:
        # The server may have refused the request before it had read all of it.
        log.debug("the rest of a request was not taken")
    return upstream


def cut_up(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield a body in pieces that a link takes at once: a chunk is all that has arrived meanwhile."""
    for chunk in chunks:
        for start in range(0, len(chunk), PIECE_BYTES):
            yield memoryview(chunk)[start : start + PIECE_BYTES]


def response_events(
    upstream: h11.Connection, channel: Channel, before_read: Callable[[], None] = lambda: None
) -> Iterator[h11.Response | h11.Data | h11.EndOfMessage]:
    """Yield the parts of the response as they arrive, the last one an EndOfMessage; raises UpstreamLost.

    `before_read` is called each time before the channel is waited for.
    """
    try:
        while True:
            event = upstream.next_event()
            if event is h11.NEED_DATA:
                before_read()
                upstream.receive_data(channel.recv(READ_ALL))
            elif isinstance(event, h11.Response | h11.Data | h11.EndOfMessage):
                yield event
                if isinstance(event, h11.EndOfMessage):
                    return
            elif not isinstance(event, h11.InformationalResponse):
                raise UpstreamLost
    except (ChannelError, h11.RemoteProtocolError):
        raise UpstreamLost from None


def check_short(size: int) -> None:
    """Raise UpstreamLost for an answer of so many bytes that is no short one: a host could answer without end."""
    if size > MAX_ANSWER:
        raise UpstreamLost


def read_answer(
    upstream: h11.Connection,
    channel: Channel,
    check_size: Callable[[int], None] = check_short,
    before_read: Callable[[], None] = lambda: None,
) -> Answer:
    """Return a whole response; raises UpstreamLost, and what `check_size` raises of the bytes that have arrived."""
    response: h11.Response | None = None
    parts: list[bytes] = []
    size = 0
    for event in response_events(upstream, channel, before_read):
        if isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            parts.append(bytes(event.data))
            size += len(event.data)
            check_size(size)
    assert response is not None, "h11 gives a response before its end"
    return response, b"".join(parts)


def read_ahead(body: Chunks) -> None:
    """Read the whole of a body that is kept, so that nothing of it is waited for while it is sent."""
    for _ in body.chunks():
        pass
