"""The page at the local port: what this side knows, and what the server says while it can be asked.

It never passes a request on: the server's own addresses can't be reached through the local port. While the link is lost
the page goes on with what is known.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h11

from dls.credentials import make_secret, server_field
from dls.page import routes
from dls.page.access import page_url
from dls.page.view import KEEPALIVE, KEEPALIVE_SECONDS, AddressView, LinkView, encode_event, make_state
from dls.remote.tunnel.downstream import ClientConnection, ClientDisconnected
from dls.remote.tunnel.headers import Answer
from dls.remote.tunnel.link import Link, LinkState
from dls.remote.tunnel.official import path_of
from dls.remote.tunnel.page_feed import PageFeed

LOOK_SECONDS = 0.5
"""Seconds between two looks at what has changed, while somebody has the page open."""
MAX_STREAMS = 16
"""Pages that may be open at once with the key, and so many without it."""


@dataclass(frozen=True)
class PageFacts:
    """What the page shows that no server says."""

    target: str
    """The host, as the user named it."""
    viewers: bool = False
    """Whether napari, 3D Slicer and MITK can use the port too."""


class Page:
    """Answers the requests for the page."""

    def __init__(self, link: Link, facts: PageFacts, secret: str | None) -> None:
        self._link = link
        self._facts = facts
        self._secret = secret
        self._key = make_secret()
        self._feed = PageFeed(link)
        self._streams = {True: 0, False: 0}
        self._lock = threading.Lock()

    def url(self, port: int) -> str:
        """Return the page's address, with the key where the local port asks for no secret."""
        return page_url(port, None if self._secret else self._key)

    def touch(self) -> None:
        """Look for changes soon, because a request has passed through the local port."""
        self._feed.touch()

    def answer(self, client: ClientConnection, request: h11.Request) -> bool:
        """Answer a request for the page, to whose secret has been looked already; False for another one.

        Raises ClientDisconnected.
        """
        # Names of headers that h11 gives are in lower case.
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in request.headers}
        decision = routes.decide(
            request.method.decode("latin-1"),
            path_of(request.target).decode("latin-1"),
            headers,
            port=int(client.address[1]),
            key=self._key,
            is_authorized=self._secret is not None,
        )
        if isinstance(decision, routes.WantsEvents):
            self._stream(client, is_private=decision.is_private)
        elif isinstance(decision, routes.WantsPicture):
            client.send_response(*_encode(routes.picture(self._feed.picture(decision.name, decision.version))))
        elif decision is not None:
            client.send_response(*_encode(decision))
        return decision is not None

    def _stream(self, client: ClientConnection, *, is_private: bool) -> None:
        with self._counted(is_private) as is_admitted:
            if not is_admitted:
                client.send_response(*_encode(routes.refusal(429, "The page is open too often. Close some of them.")))
                return
            headers = [*routes.STREAM_HEADERS, ("Connection", "close")]
            client.send(h11.Response(status_code=200, headers=headers))
            with self._feed.reading():
                self._send_events(client, is_private=is_private)
            client.send(h11.EndOfMessage())

    @contextmanager
    def _counted(self, is_private: bool) -> Iterator[bool]:
        with self._lock:
            is_admitted = self._streams[is_private] < MAX_STREAMS
            self._streams[is_private] += is_admitted
        try:
            yield is_admitted
        finally:
            with self._lock:
                self._streams[is_private] -= is_admitted

    def _send_events(self, client: ClientConnection, *, is_private: bool) -> None:
        """Send what has changed until the link is closed for good; raises ClientDisconnected."""
        last: dict[str, Any] = {}
        sent_at = 0.0
        while last.get("link", {}).get("state") != LinkState.CLOSED.value:
            if client.is_gone:
                raise ClientDisconnected
            state = self._make_state(int(client.address[1]), is_private=is_private)
            if state != last:
                client.send(h11.Data(data=encode_event(state, time.time())))
            elif time.monotonic() - sent_at > KEEPALIVE_SECONDS:
                client.send(h11.Data(data=KEEPALIVE))
            else:
                self._feed.wait(LOOK_SECONDS)
                continue
            last, sent_at = state, time.monotonic()

    def _make_state(self, port: int, *, is_private: bool) -> dict[str, Any]:
        link, feed = self._link, self._feed
        state = link.state
        is_open = state is LinkState.OPEN
        view = LinkView(state.value, link.since, link.reason, link.next_try, link.waiting)
        address = AddressView(server_field(self._secret), port, self._facts.viewers, self._secret or "")
        return make_state(
            view,
            address,
            target=self._facts.target,
            engine=link.endpoint.state.engine,
            overview=feed.overview,
            as_of=0.0 if is_open else feed.as_of,
            is_private=is_private,
        )


def _encode(reply: routes.Reply) -> Answer:
    length = [] if reply.status == 204 else [("Content-Length", str(len(reply.body)))]  # RFC 9110, section 8.6
    headers = [*reply.headers, *length]
    return h11.Response(status_code=reply.status, headers=headers), reply.body
