"""One short coroutine per route: parse the request, work on the session, encode the answer."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dls.contract import BEGIN_ANEW
from dls.errors import BadRequest, NotFound
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors
from dls.server.gpu_watch import GpuWatch
from dls.server.http import parameters
from dls.server.http.activity import Activity
from dls.server.http.body import BodyReceiver, Check
from dls.server.http.middleware import AUTHORIZED
from dls.server.sessions.arrivals import Arrival
from dls.server.sessions.registry import SessionRegistry
from dls.server.sessions.session import Session
from dls.server.volume import LASSO, SCRIBBLE, Geometry, Prompt

PROTOCOL_VERSION = "0.1.6"
"""Version of the protocol, not of the package: ITK-SNAP parses it with std::stoi and needs at least 0.1.2."""
SESSION_ENDED = {"message": "Session ended"}


class Endpoints:
    """The routes' coroutines and what they share."""

    def __init__(
        self,
        sessions: SessionRegistry,
        executors: Executors,
        readiness: Readiness,
        models: list[dict[str, Any]],
        identity: dict[str, Any],
        activity: Activity,
        gpu: GpuWatch,
    ) -> None:
        self._gpu = gpu
        self._activity = activity
        self._readiness = readiness
        self._sessions = sessions
        self._executors = executors
        self._models = models
        self._identity = identity

    async def status(self, request: Request) -> Response:
        """Answer that the server runs, and to those who know the secret, which server it is."""
        private: dict[str, Any] = {}
        if request.scope.get(AUTHORIZED):
            engine = self._sessions.describe_engine()
            private = {**self._identity, **engine, "gpu": self._gpu.describe(engine["device"], renews=False)}
        if private:
            private["idle"] = round(self._activity.idle_before, 1)
        return JSONResponse({"status": "ok", "version": PROTOCOL_VERSION, **self._readiness.describe(), **private})

    async def models(self, request: Request) -> Response:
        """List the models."""
        return JSONResponse({"models": self._models})

    async def start_session(self, request: Request) -> Response:
        """Start a session for the model in the path, or for the first one."""
        session = await self._sessions.start(request.path_params.get("model"))
        return JSONResponse({"session_id": session.id})

    async def point(self, request: Request) -> Response:
        """Apply a click."""
        session = await self._session(request)
        foreground = parameters.parse_foreground(request.query_params)
        z, y, x = parameters.parse_point(request.query_params)
        async with self._sessions.at_work(session) as work:
            if not all(0 <= at < side for at, side in zip((z, y, x), session.geometry.shape, strict=True)):
                raise BadRequest(f"The point ({x}, {y}, {z}) lies outside the image. Click inside it.")
            prompt = Prompt.point(z, y, x, foreground=foreground)
            return _mask_response(await work.prompt(prompt, parameters.parse_request_id(request.headers)))

    async def scribble(self, request: Request) -> Response:
        """Apply a scribble."""
        return await self._drawing(request, SCRIBBLE)

    async def lasso(self, request: Request) -> Response:
        """Apply a lasso."""
        return await self._drawing(request, LASSO)

    async def _drawing(self, request: Request, kind: str) -> Response:
        session = await self._session(request)
        foreground = parameters.parse_foreground(request.query_params)
        _ = session.geometry  # raises Conflict before the body is received if there is no image yet
        with self._sessions.arriving_drawing(session) as arrival:
            body = self._body(request, lambda found: _check_same_size(found, session), arrival)
            geometry, crop = await body.receive_drawing()
            if crop is None:
                raise BadRequest(f"The {kind} is empty. Draw on the image first.")
            async with self._sessions.at_work(session) as work:
                _check_same_size(geometry, session)  # the image may have been replaced meanwhile
                prompt = Prompt(kind, foreground, *crop)
                return _mask_response(await work.prompt(prompt, parameters.parse_request_id(request.headers)))

    async def reset(self, request: Request) -> Response:
        """Remove the session's prompts and empty its mask."""
        async with self._sessions.at_work(await self._session(request)) as work:
            await work.reset(parameters.parse_request_id(request.headers))
        return JSONResponse({"status": "success"})

    async def end_session(self, request: Request) -> Response:
        """End the session and remove its files; `dls sessions` ends official clients' sessions by this route too."""
        try:
            session = await self._sessions.find(request.path_params["session"])
        except NotFound:
            if parameters.is_retry(request.headers):  # the first request ended it, and its answer was lost
                return JSONResponse(SESSION_ENDED)
            raise
        async with self._sessions.at_work(session) as work:
            await work.end()
        return JSONResponse(SESSION_ENDED)

    async def _session(self, request: Request) -> Session:
        return await self._sessions.get(request.path_params["session"])

    def _body(self, request: Request, check: Check, arrival: Arrival) -> BodyReceiver:
        return BodyReceiver(request, self._executors, self._sessions.largest_image, check, arrival)


def _mask_response(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _check_same_size(geometry: Geometry, session: Session) -> None:
    image = session.geometry
    if geometry.shape != image.shape or geometry.components != 1:
        drawn, expected = (" x ".join(map(str, reversed(shape))) for shape in (geometry.shape, image.shape))
        raise BadRequest(f"What was drawn has the size {drawn}, the image {expected}. {BEGIN_ANEW}")
