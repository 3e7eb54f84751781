"""Wiring only: routes, the guard at the door, and errors as answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dls.errors import RequestError
from dls.server.engines.base import Engine, Model
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors, run_in_thread
from dls.server.http.access import Policy
from dls.server.http.activity import Activity
from dls.server.http.endpoints import Endpoints
from dls.server.sessions.registry import Sessions
from dls.server.sessions.store import SessionStore

log = logging.getLogger("dls.server")

STAND_IN_NAME = "nnInteractive"
"""ITK-SNAP's lasso asks for a model of this name and no other."""


def make_app(
    engine: Engine,
    *,
    policy: Policy,
    budget: int,
    archive: SessionStore,
    stand_in: bool = False,
    identity: dict[str, Any] | None = None,
    readiness: Readiness | None = None,
    activity: Activity | None = None,
    native_api: bool = True,
) -> ASGIApp:
    """Return the server's application.

    `archive`, opened, holds the sessions' files; `identity` is told to those who know the secret; `readiness` says how
    far the engine is; `activity` when somebody last asked; `other_door` lets the engine's own protocol in beside
    ITK-SNAP's, where it has one.
    """
    workers = Executors(engine.threads)
    models = listed(engine.models, stand_in)
    readiness = readiness or Readiness()
    sessions = Sessions(engine, workers, readiness, archive, budget, models)
    activity = activity or Activity()
    about = [described(model) for model in models]
    endpoints = Endpoints(sessions, workers, readiness, about, identity or {}, activity)
    door = NativeApi()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:

            async def get_ready() -> None:
                await readiness.load(engine, workers)
                if native_api and readiness.is_ready:
                    await door.open(engine.native_api(workers.engine_pool), stack)

            tasks = [asyncio.create_task(work) for work in (get_ready(), sessions.look_after())]
            yield
            for task in tasks:
                task.cancel()
        # The engine first: what it still works on could take long, and nobody waits for it any more. Closing the rest
        # waits for work that ends then, so it must not hold up the event loop.
        await run_in_thread(engine.close)
        await run_in_thread(workers.close)
        sessions.close()

    handlers: dict[Any, Any] = {RequestError: _refused, HTTPException: _no_such_route, Exception: _broken}
    app = Starlette(routes=[*routes(endpoints), Mount("/", door)], exception_handlers=handlers, lifespan=lifespan)
    return Logged(Guard(app, policy), activity)


def listed(models: tuple[Model, ...], stand_in: bool) -> tuple[Model, ...]:
    """Return the models as the client sees them; a stand-in answers to nnInteractive's name too."""
    if not stand_in or any(model.id == STAND_IN_NAME for model in models):
        return models
    return (*models, Model(STAND_IN_NAME, models[0].interactions, models[0].channels, models[0].dimensions))


def described(model: Model) -> dict[str, Any]:
    """Return a model's entry in the list, its keys in upstream's order."""
    return {
        "id": model.id,
        "channels": list(model.channels),
        "dimensions": model.dimensions,
        "interactions": list(model.interactions),
    }


Coroutines = Callable[[Request], Coroutine[Any, Any, Response]]


def routes(endpoints: Endpoints) -> list[Route]:
    """Return every route, old and new: a current ITK-SNAP mixes both."""

    def both(path: str, endpoint: Coroutines, *methods: str) -> list[Route]:
        return [Route(prefix + path, endpoint, methods=list(methods)) for prefix in ("", "/v2")]

    return [
        Route("/status", endpoints.status, methods=["GET"]),
        Route("/v2/models", endpoints.models, methods=["GET"]),
        Route("/start_session", endpoints.start_session, methods=["GET"]),
        Route("/v2/start_session/{model}", endpoints.start_session, methods=["GET"]),
        *both("/upload_raw/{session}", endpoints.upload, "POST"),
        *both("/process_point_interaction/{session}", endpoints.point, "GET"),
        *both("/process_scribble_interaction/{session}", endpoints.scribble, "POST"),
        *both("/process_lasso_interaction/{session}", endpoints.lasso, "POST"),
        *both("/reset_interactions/{session}", endpoints.reset, "GET"),
        *both("/end_session/{session}", endpoints.end_session, "GET"),
    ]


async def _refused(request: Request, error: RequestError) -> Response:
    return JSONResponse({"error": error.message}, error.status)


async def _no_such_route(request: Request, error: HTTPException) -> Response:
    message = f"This server has nothing at that address ({error.detail})."
    return JSONResponse({"error": message}, error.status_code, headers=error.headers)


async def _broken(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "The server made a mistake. Its log says more; please report it."}, 500)


class NativeApi:
    """The engine's own application beside our routes: shut until the engine is loaded, and where it has none."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def open(self, app: Any, stack: AsyncExitStack) -> None:
        """Let requests in to the application; its lifespan ends with the stack."""
        if app is not None:
            if hasattr(app, "router"):
                # A mounted application's lifespan is nobody's business by itself: without it, dead sessions would stay.
                await stack.enter_async_context(app.router.lifespan_context(app))
            self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; without an application there is nothing at any other address."""
        if self._app is None:
            raise HTTPException(404)
        await self._app(scope, receive, send)


class Guard:
    """Judges every request before anything else sees it."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            # uvicorn has no address to give for a Unix socket.
            refusal = self._policy.judge(headers, over_socket=not scope.get("server") or scope["server"][1] is None)
            if refusal is not None:
                challenge = {"WWW-Authenticate": 'Basic realm="dls"'} if refusal.status == 401 else None
                answer = JSONResponse({"error": refusal.message}, refusal.status, headers=challenge)
                await answer(scope, receive, send)
                return
            scope["dls.authorized"] = self._policy.is_authorized(headers)
        await self._app(scope, receive, send)


class Logged:
    """Logs what was asked, how it ended and how long it took; never contents, names or secrets."""

    def __init__(self, app: ASGIApp, activity: Activity) -> None:
        self._app = app
        self._activity = activity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status, size = 0, 0

        async def watched(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            size += len(message.get("body", b""))
            await send(message)

        self._activity.begin()
        try:
            await self._app(scope, receive, watched)
        except Exception:  # it has been answered by _broken, and comes here to be logged
            log.exception("a request failed in a way nobody foresaw")
        finally:
            self._activity.end()
        if scope["path"] != "/status":
            seconds = time.monotonic() - started
            log.info("%s %s: %d, %d bytes in %.3f s", scope["method"], _what(scope["path"]), status, size, seconds)


def _what(path: str) -> str:
    parts = [part for part in path.split("/") if part and part != "v2"]
    return parts[0][:40] if parts else "/"
