"""The server's side of the proxy: requests that are sent over a channel, and whole answers to them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

import h11

from dls.remote.ssh.channel import Channel, ChannelError

PIECE_BYTES = 256 * 1024
"""Size of the pieces in which a body is sent; between two of them the server may have refused it."""
EARLY_ANSWER_PIECES = 4
"""Number of pieces that are sent whatever the server says meanwhile."""
READ_ALL = 1 << 24
"""Bytes read at a time. Read everything buffered: paramiko shifts the rest of its buffer at each partial read."""
MAX_ANSWER = 1 << 20
"""Largest answer in bytes to a request of the proxy's own, or to an upload."""

log = logging.getLogger("dls.forward")


class UpstreamLost(Exception):
    """The channel to the server broke in the middle of a request."""


def cut_up(chunks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Yield a body in pieces that a link takes at once: a chunk is all that has arrived meanwhile."""
    for chunk in chunks:
        for start in range(0, len(chunk), PIECE_BYTES):
            yield memoryview(chunk)[start : start + PIECE_BYTES]


def send_request(
    channel: Channel,
    method: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    pieces: Iterable[bytes | memoryview] = (),
) -> h11.Connection:
    """Send a request over a channel; a failure shows when the response is read.

    The server looks for the session before it reads a body. What is answered meanwhile is answered for good, so the
    rest of an image for a session that is gone is not sent over the link.
    """
    upstream = h11.Connection(h11.CLIENT)
    head = upstream.send(h11.Request(method=method, target=target, headers=headers))
    try:
        channel.sendall(head or b"")
        for sent, piece in enumerate(pieces):
            # A short body is sent to its end, so that the client's next request on this connection is read.
            if sent >= EARLY_ANSWER_PIECES and channel.is_answered:
                log.debug("a request was answered before it was sent to its end")
                break
            channel.sendall(piece)
    except ChannelError:
        # The server may have refused the request before it had read all of it.
        log.debug("the rest of a request was not taken")
    return upstream


def read_answer(upstream: h11.Connection, channel: Channel) -> tuple[h11.Response, bytes]:
    """Return the response and its body, when both are complete; raises UpstreamLost."""
    response: h11.Response | None = None
    body = b""
    with contextlib.suppress(ChannelError, h11.RemoteProtocolError):
        while len(body) <= MAX_ANSWER:
            event = upstream.next_event()
            if event is h11.NEED_DATA:
                upstream.receive_data(channel.recv(READ_ALL))
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and response is not None:
                return response, body
            elif not isinstance(event, h11.InformationalResponse):
                break
    raise UpstreamLost
