"""Wires the application together: routes, middleware, startup and shutdown, and errors as responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from dls.contract import FACTS_PATH, IMAGES_PATH, PARTS_PATH
from dls.errors import Exhausted, RequestError
from dls.server.engines.base import Engine
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors, run_in_thread
from dls.server.gpu_watch import GpuWatch
from dls.server.http.access import Policy
from dls.server.http.activity import Activity
from dls.server.http.endpoints import Endpoints
from dls.server.http.facts import Facts
from dls.server.http.middleware import AccessMiddleware, RequestLogMiddleware
from dls.server.http.models import describe_model, list_models
from dls.server.http.official import Official
from dls.server.http.official_answers import ANSWER_SECONDS
from dls.server.http.overview import Overview
from dls.server.http.page import Page, PageMiddleware
from dls.server.http.recent import RecentRequests
from dls.server.http.refusals import refuse
from dls.server.http.uploads import UploadEndpoints
from dls.server.log_tail import LogTail
from dls.server.sessions.registry import SessionRegistry
from dls.server.sessions.store import SessionStore

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


def make_app(
    engine: Engine,
    *,
    policy: Policy,
    budget: int,
    store: SessionStore,
    stand_in: bool = False,
    identity: dict[str, Any] | None = None,
    readiness: Readiness | None = None,
    activity: Activity | None = None,
    native_api: bool = True,
    page: Page | None = None,
    answer_seconds: float = ANSWER_SECONDS,
    idle: float | None = None,
) -> ASGIApp:
    """Return the server's application.

    `budget` is the memory in bytes that the images of all sessions may take; `store`, already open, holds the
    sessions' files; `stand_in` lists the engine under nnInteractive's name too; `identity` is part of `/status` for
    those who know the secret; `readiness` reports how far the engine is loaded; `activity` counts the requests;
    `native_api` serves official clients too, where the engine can, and lets them wait for `answer_seconds`; `page` is
    served to the browsers of this computer, where there is one; `/dls/facts` says that the server ends after `idle`
    seconds without a request.
    """
    executors = Executors(engine.threads)
    models = list_models(engine.models, stand_in)
    readiness = readiness or Readiness()
    sessions = SessionRegistry(engine, executors, readiness, store, budget, models)
    activity = activity or Activity()
    descriptions = [describe_model(model) for model in models]
    gpu = GpuWatch()
    endpoints = Endpoints(sessions, executors, readiness, descriptions, identity or {}, activity, gpu)
    uploads = UploadEndpoints(sessions, executors)
    official = Official(engine, sessions, executors, readiness, answer_seconds)
    requests = RecentRequests(sessions.engine_seconds)
    facts = Facts(engine, sessions, readiness, activity, requests, gpu, idle)
    log_tail = LogTail()
    overview = Overview(engine, sessions, executors, readiness, requests, log_tail, gpu)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with run_backend(engine, executors, sessions, readiness):
            with log_tail.collecting():
                yield
            official.close()

    all_routes = [*routes(endpoints, uploads, facts), *overview.routes(), *(official.routes() if native_api else [])]
    app = Starlette(routes=all_routes, exception_handlers=EXCEPTION_HANDLERS, lifespan=lifespan)
    app.router.redirect_slashes = False
    guarded: ASGIApp = AccessMiddleware(app, policy)
    if page is not None:
        guarded = PageMiddleware(guarded, page, policy, overview)
    return RequestLogMiddleware(guarded, activity, requests.add)


@asynccontextmanager
async def run_backend(
    engine: Engine, executors: Executors, sessions: SessionRegistry, readiness: Readiness
) -> AsyncIterator[None]:
    """Load the engine and maintain the sessions while the context is open, and close them at its end."""
    loading = readiness.load(engine, executors)
    tasks = [asyncio.create_task(work) for work in (loading, sessions.run_maintenance())]
    yield
    for task in tasks:
        task.cancel()
    # Close the engine first: its running work could take long, and nobody waits for the result any more. Closing
    # the executors waits for work that ends only then, so it must not block the event loop.
    await run_in_thread(engine.close)
    await run_in_thread(executors.close)
    sessions.close()


def routes(endpoints: Endpoints, uploads: UploadEndpoints, facts: Facts) -> list[Route]:
    """Return the routes of both protocol versions: a current ITK-SNAP uses both."""

    def both(path: str, endpoint: Endpoint, method: str) -> list[Route]:
        return [Route(prefix + path, endpoint, methods=[method]) for prefix in ("", "/v2")]

    return [
        Route("/status", endpoints.status, methods=["GET"]),
        Route("/v2/models", endpoints.models, methods=["GET"]),
        Route("/start_session", endpoints.start_session, methods=["GET"]),
        Route("/v2/start_session/{model}", endpoints.start_session, methods=["GET"]),
        *both("/upload_raw/{session}", uploads.upload, "POST"),
        *both("/process_point_interaction/{session}", endpoints.point, "GET"),
        *both("/process_scribble_interaction/{session}", endpoints.scribble, "POST"),
        *both("/process_lasso_interaction/{session}", endpoints.lasso, "POST"),
        *both("/reset_interactions/{session}", endpoints.reset, "GET"),
        *both("/end_session/{session}", endpoints.end_session, "GET"),
        Route(FACTS_PATH, facts.answer, methods=["GET"]),
        Route(IMAGES_PATH + "/{image}", uploads.find_image, methods=["GET"]),
        Route(PARTS_PATH + "/{session}/{request}", uploads.find_part, methods=["GET"]),
    ]


async def answer_request_error(request: Request, error: RequestError) -> Response:
    """Answer a refused request with the error's status and sentence."""
    return refuse(error.message, error.status)


async def answer_http_exception(request: Request, error: HTTPException) -> Response:
    """Answer a request for an address or method that the server does not have."""
    what = "takes another method" if error.status_code == 405 else "has nothing"
    return refuse(f"This server {what} at that address ({error.detail}).", error.status_code, error.headers)


async def answer_memory_error(request: Request, error: MemoryError) -> Response:
    """Answer a request for which the system grants this process no memory, thread or descriptor."""
    message = "The server has no memory for this at this moment. Try again, or use a smaller image."
    return refuse(message, Exhausted.status)


async def answer_unexpected_error(request: Request, error: Exception) -> Response:
    """Answer a request that failed because of a mistake in this server; the log has the traceback."""
    return refuse("The server made a mistake. Its log says more; please report it.", 500)


EXCEPTION_HANDLERS: dict[Any, Any] = {
    RequestError: answer_request_error,
    HTTPException: answer_http_exception,
    MemoryError: answer_memory_error,
    Exception: answer_unexpected_error,
}
"""What answers a request that ended with an exception of each class."""
