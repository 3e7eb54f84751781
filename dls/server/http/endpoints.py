"""One short coroutine a route: read the request, ask the session, write the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from dls.contract import REQUEST_HEADER, RETRY_HEADER
from dls.errors import BadRequest, NotFound
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors, SerialWorker
from dls.server.http.activity import Activity
from dls.server.sessions.registry import Sessions
from dls.server.sessions.session import Session
from dls.server.volume import LASSO, SCRIBBLE, Geometry, Prompt
from dls.server.wire.upload import DrawingSink, ImageSink, Sink, Upload

PROTOCOL_VERSION = "0.1.6"
"""Of the protocol, not of the package. ITK-SNAP parses it with std::stoi: digits and dots only, at least 0.1.2."""
ENDED = {"message": "Session ended"}
FEED_BYTES = 1 << 20
"""How much of a body is handed on at a time; the next lot arrives meanwhile."""


class Endpoints:
    """The routes' coroutines, and what they share."""

    def __init__(
        self,
        sessions: Sessions,
        workers: Executors,
        readiness: Readiness,
        models: list[dict[str, Any]],
        identity: dict[str, Any],
        activity: Activity,
    ) -> None:
        self._activity = activity
        self._readiness = readiness
        self._sessions = sessions
        self._workers = workers
        self._models = models
        self._identity = identity

    async def status(self, request: Request) -> Response:
        """Answer that the server is there; to those who know the secret, which one it is."""
        known = {**self._identity, **self._sessions.about_engine()} if request.scope.get("dls.authorized") else {}
        if known:
            known["idle"] = round(self._activity.idle_before, 1)
        return JSONResponse({"status": "ok", "version": PROTOCOL_VERSION, **self._readiness.describe(), **known})

    async def models(self, request: Request) -> Response:
        """List the models."""
        return JSONResponse({"models": self._models})

    async def start_session(self, request: Request) -> Response:
        """Start a session, for the model in the path or for the first one."""
        session = await self._sessions.start(request.path_params.get("model"))
        return JSONResponse({"session_id": session.id})

    async def upload(self, request: Request) -> Response:
        """Take the image, and keep it as it comes."""
        session = await self._session(request)
        arrived = await self._sessions.arriving(session, _content_length(request))
        # The old image's memory serves the new one; should that be refused, the next prompt wakes the old one.
        emptying = asyncio.create_task(self._sessions.sleep(session))
        sink = ImageSink(self._sessions.largest_image)
        behind = SerialWorker()
        try:
            geometry = await self._receive(
                request,
                ThreadedSink(behind, sink),
                self._sessions.check_size,
                lambda data: behind.submit(arrived.write, data),
            )
            await self._workers.codec(behind.finish)
            await self._sessions.set_image(session, sink.volume(geometry), arrived, _request_id(request))
        except BaseException:
            await self._workers.codec(behind.close)
            await self._workers.codec(arrived.discard)
            raise
        finally:
            sink.close()
            await emptying
        return JSONResponse({"message": "NIFTI file uploaded and stored in GPU memory"})

    async def point(self, request: Request) -> Response:
        """Take a click: `point` three times (v2), or `x`, `y` and `z` (v1)."""
        session = await self._session(request)
        foreground = _foreground(request)
        x, y, z = _point(request)
        async with self._sessions.at_work(session):
            if not all(0 <= at < side for at, side in zip((z, y, x), session.geometry.shape, strict=True)):
                raise BadRequest(f"The point ({x}, {y}, {z}) lies outside the image. Click inside it.")
            return await self._prompt(request, session, Prompt.point(z, y, x, foreground=foreground))

    async def scribble(self, request: Request) -> Response:
        """Take a scribble."""
        return await self._drawing(request, SCRIBBLE)

    async def lasso(self, request: Request) -> Response:
        """Take a lasso."""
        return await self._drawing(request, LASSO)

    async def _drawing(self, request: Request, kind: str) -> Response:
        session = await self._session(request)
        foreground = _foreground(request)
        _ = session.geometry  # refused at once when there is no image yet
        sink = DrawingSink()
        geometry = await self._receive(request, sink, lambda found: _same_size(found, session))
        drawn = await self._workers.codec(sink.crop, geometry)
        if drawn is None:
            raise BadRequest(f"The {kind} is empty. Draw on the image first.")
        async with self._sessions.at_work(session):
            _same_size(geometry, session)  # another image may have come meanwhile
            return await self._prompt(request, session, Prompt(kind, foreground, *drawn))

    async def reset(self, request: Request) -> Response:
        """Forget what was drawn."""
        await self._sessions.reset(await self._session(request))
        return JSONResponse({"status": "success"})

    async def end_session(self, request: Request) -> Response:
        """Forget the session."""
        try:
            session = await self._session(request)
        except NotFound:
            if request.headers.get(RETRY_HEADER):  # its answer was lost on the way
                return JSONResponse(ENDED)
            raise
        async with self._sessions.at_work(session):
            await self._sessions.end(session)
        return JSONResponse(ENDED)

    async def _session(self, request: Request) -> Session:
        return await self._sessions.get(request.path_params["session"])

    async def _prompt(self, request: Request, session: Session, prompt: Prompt) -> Response:
        body = await self._sessions.prompt(session, prompt, _request_id(request))
        return Response(body, media_type="application/json")

    async def _receive(
        self,
        request: Request,
        sink: Sink,
        check: Callable[[Geometry], object],
        keep: Callable[[bytes], None] = lambda data: None,
    ) -> Geometry:
        loop = asyncio.get_running_loop()

        async def checked(geometry: Geometry) -> None:
            check(geometry)

        def on_the_loop(geometry: Geometry) -> None:
            # The upload is parsed on a worker; the sessions belong to the event loop.
            asyncio.run_coroutine_threadsafe(checked(geometry), loop).result()

        kind = request.headers.get("content-type", "")
        upload = Upload(kind, sink, self._sessions.largest_image, on_the_loop, keep)
        feeding = SerialWorker()
        lot: list[bytes] = []
        size = 0
        try:
            async for chunk in request.stream():
                lot.append(chunk)
                size += len(chunk)
                if size < FEED_BYTES and chunk:
                    continue
                data, lot, size = b"".join(lot), [], 0
                if feeding.is_full:  # the event loop never waits for room
                    await self._workers.codec(feeding.submit, upload.feed, data)
                else:
                    feeding.submit(upload.feed, data)
            await self._workers.codec(feeding.finish)
        except ClientDisconnect:
            raise BadRequest("The client went away in the middle of the request.") from None
        finally:
            await self._workers.codec(feeding.close)
        return await self._workers.codec(upload.finish)


class ThreadedSink:
    """A sink whose blocks are written on another thread."""

    def __init__(self, behind: SerialWorker, sink: Sink) -> None:
        self._behind = behind
        self._sink = sink

    def write(self, block: bytes) -> None:
        """Hand the block on."""
        self._behind.submit(self._sink.write, block)


def _same_size(geometry: Geometry, session: Session) -> None:
    image = session.geometry
    if geometry.shape != image.shape or geometry.components != 1:
        drawn, wanted = (" x ".join(map(str, reversed(shape))) for shape in (geometry.shape, image.shape))
        raise BadRequest(f"What was drawn has the size {drawn}, the image {wanted}. Send the image again.")


def _request_id(request: Request) -> str:
    return request.headers.get(REQUEST_HEADER, "")[:64]


def _content_length(request: Request) -> int:
    value = request.headers.get("content-length", "")
    return int(value) if value.isdecimal() and len(value) < 16 else 0


def _foreground(request: Request) -> bool:
    value = request.query_params.get("foreground", "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise BadRequest("foreground must be true or false.")
    return value in ("true", "1")


def _point(request: Request) -> list[int]:
    query = request.query_params
    values = query.getlist("point") or [query.get(axis, "") for axis in "xyz"]
    if len(values) != 3:
        raise BadRequest("A point of this model has three coordinates: x, y and z.")
    try:
        return [int(value[:12]) for value in values]
    except ValueError:
        raise BadRequest("The point's coordinates must be whole numbers.") from None
