"""Serves the page of a server that a user started on this computer: `dls serve`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from dls.credentials import make_secret
from dls.page import access, routes
from dls.page.view import KEEPALIVE, KEEPALIVE_SECONDS, AddressView, LinkView, clean_overview, encode_event, make_state
from dls.server.http.access import HOW_TO_AUTHORIZE, Policy
from dls.server.http.overview import Overview
from dls.server.http.refusals import refuse

LOOK_SECONDS = 1.0
"""Seconds between two looks at what has changed, while somebody has the page open."""
MAX_STREAMS = 16
"""Pages that may be open at once with the key, and so many without it."""


class Page:
    """What is known of the page before the application is made; `end` closes its streams."""

    def __init__(self, port: int, address: AddressView, host: str) -> None:
        self.port = port
        self.address = address
        self.host = host
        """What the page calls this computer."""
        self.key = make_secret()
        self.started = time.time()
        self.ended = asyncio.Event()
        self.streams = {True: 0, False: 0}
        """Number of pages that are open, with the key and without it."""

    @property
    def url(self) -> str:
        """The page's address, with the key where no secret is asked for."""
        return access.page_url(self.port, None if self.address.secret else self.key)

    def end(self) -> None:
        """Close the streams."""
        self.ended.set()

    def make_state(self, said: dict[str, Any], *, is_private: bool) -> dict[str, Any]:
        """Return what the page shows."""
        overview = clean_overview(said)
        link = LinkView("local", self.started)
        name = overview["engine"].get("name", "")
        return make_state(
            link, self.address, target=self.host, engine=name, overview=overview, as_of=0.0, is_private=is_private
        )


class PageMiddleware:
    """Answers requests for the page, and passes on the others."""

    def __init__(self, app: ASGIApp, page: Page, policy: Policy, overview: Overview) -> None:
        self._app = app
        self._page = page
        self._policy = policy
        self._overview = overview

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for the page, once it is known that it comes from a browser of this computer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_authorized = self._policy.is_authorized(headers)
        decision = routes.decide(
            scope["method"],
            scope["path"],
            headers,
            port=self._page.port,
            key=self._page.key,
            is_authorized=is_authorized,
        )
        if decision is None:
            await self._app(scope, receive, send)
        elif self._policy.secret is not None and not is_authorized and not _is_forbidden(decision):
            challenge = {"WWW-Authenticate": 'Basic realm="dls"'}
            await refuse(f"The page asks for the secret. {HOW_TO_AUTHORIZE}", 401, challenge)(scope, receive, send)
        else:
            await (await self._answer(decision))(scope, receive, send)

    async def _answer(self, decision: routes.Reply | routes.WantsEvents | routes.WantsPicture) -> Response:
        if isinstance(decision, routes.WantsEvents):
            if self._page.streams[decision.is_private] >= MAX_STREAMS:
                return _response(routes.refusal(429, "The page is open too often. Close some of them."))
            return StreamingResponse(self._events(decision.is_private), headers=dict(routes.STREAM_HEADERS))
        if isinstance(decision, routes.WantsPicture):
            return _response(routes.picture(await self._overview.picture(decision.name, decision.version)))
        return _response(decision)

    async def _events(self, is_private: bool) -> AsyncIterator[bytes]:
        page, last, sent_at = self._page, None, time.monotonic()
        page.streams[is_private] += 1
        try:
            while not page.ended.is_set():
                state = page.make_state(await self._overview.describe(), is_private=is_private)
                if state != last or time.monotonic() - sent_at > KEEPALIVE_SECONDS:
                    yield encode_event(state, time.time()) if state != last else KEEPALIVE
                    last, sent_at = state, time.monotonic()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(page.ended.wait(), LOOK_SECONDS)
        finally:
            page.streams[is_private] -= 1


def _is_forbidden(decision: object) -> bool:
    return isinstance(decision, routes.Reply) and decision.status == 403


def _response(reply: routes.Reply) -> Response:
    response = Response(reply.body, reply.status)
    for name, value in reply.headers:
        response.headers[name] = value
    return response
