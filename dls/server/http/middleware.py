"""Middleware around the application: access checks and the request log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dls.contract import FACTS_PATH, OVERVIEW_PATH, PICTURES_PATH
from dls.page.routes import ROOM
from dls.server.http.access import Policy
from dls.server.http.activity import Activity
from dls.server.http.refusals import refuse

AUTHORIZED = "dls.authorized"
"""Key in the ASGI scope that says whether the client knows the server's secret: from the request or the connection."""
OWNER = "dls.owner"
"""Key that says whether the client is this server's user: it came over the socket, or it is authorized."""

UNLOGGED = ("/status", "/healthz", "/heartbeat", OVERVIEW_PATH, PICTURES_PATH, ROOM)
"""Beginnings of the paths that clients, and the page, ask for again and again."""
Observe = Callable[[Scope, int, float], None]
"""Is told of each request that was answered: its scope, its status, and the seconds that it took."""

log = logging.getLogger("dls.server")


def check_owner(request: Request) -> None:
    """Raise a 404, as for an address that the server does not have, for anybody but its user."""
    if not request.scope.get(OWNER):
        raise HTTPException(404)


def authorize(app: ASGIApp) -> ASGIApp:
    """Return the application as the clients of a proven connection see it: as those who know the secret."""

    async def authorized(scope: Scope, receive: Receive, send: Send) -> None:
        scope[AUTHORIZED] = True
        await app(scope, receive, send)

    return authorized


class AccessMiddleware:
    """Refuses requests that the policy does not allow, before anything else sees them."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 403."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            is_proven = scope.get(AUTHORIZED, False)
            # uvicorn gives no address for a request that came over a Unix socket.
            over_socket = not scope.get("server") or scope["server"][1] is None
            is_inside = over_socket or is_proven
            refusal = self._policy.check(headers, over_socket=is_inside)
            if refusal is not None:
                challenge = {"WWW-Authenticate": 'Basic realm="dls"'} if refusal.status == 401 else None
                response = refuse(refusal.message, refusal.status, challenge)
                await response(scope, receive, send)
                return
            scope[AUTHORIZED] = is_proven or self._policy.is_authorized(headers)
            scope[OWNER] = is_inside or scope[AUTHORIZED]
        await self._app(scope, receive, send)


class RequestLogMiddleware:
    """Logs each request's route, status, size and duration, and never contents, names or secrets."""

    def __init__(
        self, app: ASGIApp, activity: Activity, observe: Observe = lambda scope, status, seconds: None
    ) -> None:
        self._app = app
        self._activity = activity
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and log it; those that only ask whether the server lives are counted, but not logged.

        A look at the facts is not even counted: a server does not live on because somebody asks when it ends.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == FACTS_PATH:
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status, size, is_counted = 0, 0, False

        def count() -> None:
            nonlocal is_counted
            if not is_counted:
                is_counted = True
                self._activity.end()
                self._observe(scope, status, time.monotonic() - started)

        async def send_and_count(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            size += len(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                count()  # before the last byte: who has the whole response finds it counted
            await send(message)

        self._activity.begin()
        try:
            await self._app(scope, receive, send_and_count)
        except Exception:  # already answered by the application's handler, which raises it again for the log
            log.exception("a request failed with an unexpected error")
        finally:
            count()
        if not scope["path"].startswith(UNLOGGED):
            seconds = time.monotonic() - started
            log.info("%s %s: %d, %d bytes in %.3f s", scope["method"], _route(scope["path"]), status, size, seconds)


def _route(path: str) -> str:
    """Return the first part of the path, which names the route and no session, as text that can't forge a log line."""
    parts = [part for part in path.split("/") if part and part != "v2"]
    name = parts[0][:40] if parts else "/"
    return "".join(character if character.isprintable() else "?" for character in name)
