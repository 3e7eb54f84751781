"""The routes of nnInteractive's own protocol (nninteractive 2.6), for napari, 3D Slicer, MITK and whatever speaks it.

A lease is one of our sessions: it lives in the same files, journal and memory budget as ITK-SNAP's, and outlives the
engine and the server. Its token is the session's id without dashes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dls.contract import MISSED_HEADER
from dls.errors import (
    BadRequest,
    Conflict,
    Delayed,
    Exhausted,
    Gone,
    NotFound,
    NotHeld,
    NotServed,
    RequestError,
    TooLarge,
)
from dls.server.engines.base import Engine
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors, run_in_thread
from dls.server.http import official_bodies, parameters
from dls.server.http.body import Cut, end_of_image
from dls.server.http.official_answers import ANSWER_SECONDS, IMAGE_SECONDS, InTime, Patience, PredictionResponse
from dls.server.http.refusals import refuse
from dls.server.http.uploads import parse_sent_image
from dls.server.operations import MASKED, PLAIN, Operation
from dls.server.sessions.arrivals import Arrival
from dls.server.sessions.images import SentImage
from dls.server.sessions.incoming import NOTHING_HELD, IncomingImage
from dls.server.sessions.official_session import Delivery, OfficialSession
from dls.server.sessions.registry import SessionRegistry
from dls.server.volume import Geometry
from dls.server.wire import official as wire
from dls.server.wire.nnia import Header

LEASE_HEADER, META_HEADER = "X-Lease-Token", "X-Meta"
TOKEN = re.compile(r"[0-9a-f]{32}")
LIVENESS_SECONDS = 60.0
"""What clients are told of how long they may be silent: they send a heartbeat twice in that time, and need not."""
MAX_SESSIONS = 500
"""What clients are told of how many leases there may be; none is refused, because sessions that nobody uses sleep."""
RETRY_AFTER = {"Retry-After": "10"}
LOCK_SECONDS = 0.5
"""Pause between two looks at a session that another server has, as one that is just ending."""
MISSING, UNKNOWN = "lease token missing", "lease expired or unknown"
"""The words of the library's own server for a lease that is not there."""
STATUSES: dict[type[RequestError], int] = {Exhausted: 507, NotFound: 410}
"""Statuses that differ from ITK-SNAP's: at a 503 a client says that the server has too many sessions."""
NOT_SERVED = "This server runs the {} engine, which can't serve clients of nnInteractive: start it with {}."

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class Official:
    """The routes' coroutines and what they share."""

    def __init__(
        self,
        engine: Engine,
        sessions: SessionRegistry,
        executors: Executors,
        readiness: Readiness,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._executors = executors
        self.in_time = InTime(readiness, seconds)

    def close(self) -> None:
        """Cancel the work that nobody waits for any more, because the server ends."""
        self.in_time.close()

    def routes(self) -> list[Route]:
        """Return the protocol's routes."""
        gets: dict[str, Endpoint] = {"capabilities": self.capabilities, "lease_status": self.lease_status}
        posts: dict[str, Endpoint] = {
            "claim": self.claim,
            "release": self.release,
            "heartbeat": self.heartbeat,
            "set_image": self.set_image,
            **{name: self._endpoint_of(name) for name in wire.PARSERS},
        }
        return [
            Route("/healthz", healthz, methods=["GET"]),
            *(Route(f"/{name}", self._answering(endpoint), methods=["GET"]) for name, endpoint in gets.items()),
            *(Route(f"/{name}", self._answering(endpoint), methods=["POST"]) for name, endpoint in posts.items()),
        ]

    def _answering(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint with its refusals as these clients understand them."""

        async def answer(request: Request) -> Response:
            try:
                if self._engine.official is None:
                    raise NotServed(NOT_SERVED.format(self._engine.name, "--engine nninteractive"))
                return await endpoint(request)
            except MemoryError:
                return refuse("The server has no memory for this at this moment.", STATUSES[Exhausted])
            except RequestError as error:
                sentence = UNKNOWN if isinstance(error, NotFound) else error.message
                return refuse(sentence, STATUSES.get(type(error), error.status))

        return answer

    async def capabilities(self, request: Request) -> Response:
        """Answer what the model is capable of, once it is loaded."""
        await self.in_time.wait_ready(self._sessions.wait_ready())
        assert self._engine.official is not None
        return JSONResponse(self._engine.official.capabilities)

    async def claim(self, request: Request) -> Response:
        """Begin a session; while the engine is not ready, the client is told to come back."""
        try:
            await self.in_time.wait_ready(self._sessions.wait_ready())
            session = await self._sessions.claim()
        except (Delayed, Exhausted) as error:
            return refuse(error.message, 503, RETRY_AFTER)
        return JSONResponse(
            {
                "lease_token": session.token,
                "idle_timeout_seconds": self._sessions.ttl,
                "liveness_timeout_seconds": LIVENESS_SECONDS,
                "max_sessions": MAX_SESSIONS,
            }
        )

    async def release(self, request: Request) -> Response:
        """End the session and remove its files, if there is such a session."""
        with contextlib.suppress(RequestError):
            patience = self._patience()
            session = await self._session(request, patience)
            await self.in_time.run(self._end(session), Delivery(), patience.left)
        return JSONResponse({"released": True})

    async def _end(self, session: OfficialSession) -> None:
        async with self._sessions.at_official_work(session) as work:
            await work.end()

    async def heartbeat(self, request: Request) -> Response:
        """Answer at once that the lease goes on, whatever the engine does."""
        await self._touch(request)
        return JSONResponse({"remaining_seconds": self._sessions.ttl})

    async def lease_status(self, request: Request) -> Response:
        """Answer at once how long the lease goes on."""
        await self._touch(request)
        return JSONResponse({"remaining_seconds": self._sessions.ttl, "idle_timeout_seconds": self._sessions.ttl})

    async def _touch(self, request: Request) -> None:
        """Make sure that there is such a session, and that it does not expire."""
        with contextlib.suppress(Conflict):  # another server has the session, which is none the less there
            session = await self._find(request, is_use=False)
            await run_in_thread(session.files.refresh_times)

    async def set_image(self, request: Request) -> Response:
        """Receive the session's image into a file, and begin to prepare it."""
        session = await self._session(request, self._patience())
        if META_HEADER in request.headers:
            wire.parse_object(request.headers[META_HEADER], META_HEADER)
        sent, delivery = parse_sent_image(request), Delivery()
        async with contextlib.AsyncExitStack() as stack:
            header, incoming = await self._receive_image(stack, request, session, sent)
            name = parameters.parse_request_id(request.headers)
            work = self._take_image(stack.pop_all(), session, header, incoming, name, delivery)
        await self.in_time.run(work, delivery, IMAGE_SECONDS)
        if sent.name and not sent.copy:
            self._sessions.images.share(session)
        return JSONResponse({"original_image_shape": list(header.shape)})

    async def _receive_image(
        self, stack: contextlib.AsyncExitStack, request: Request, session: OfficialSession, sent: SentImage
    ) -> tuple[Header, IncomingImage]:
        """Receive an image, or take what the server holds of it; raises NotHeld where that is something else."""
        incoming = await self._sessions.images.receive(session, sent)
        length = incoming.expected
        arrival = stack.enter_context(self._sessions.arriving_image(session, length))
        stack.enter_context(session.uploading(sent.name, arrival))
        stack.push_async_exit(_leaving(incoming, arrival, self._executors))
        receiving = official_bodies.receive_image(
            request, length, incoming, self._executors, arrival, self._check_image
        )
        try:
            header = await arrival.unless_refused(receiving)
        except (BadRequest, TooLarge) as error:
            if incoming.held and not isinstance(error, Cut):
                raise NotHeld(NOTHING_HELD) from error
            raise
        if sent.copy and not await self._sessions.images.is_whole(sent.copy, incoming):
            raise NotHeld(NOTHING_HELD)
        if not sent.length:  # it has come in chunks, and nobody knew how long it is
            await self._sessions.images.make_room(session)
        arrival.is_handed_over = True
        await self._executors.codec(incoming.finish)
        return header, incoming

    def _check_image(self, header: Header) -> None:
        wire.check_image(header)
        self._sessions.check_size(_geometry_of(header))

    async def _take_image(
        self,
        stack: contextlib.AsyncExitStack,
        session: OfficialSession,
        header: Header,
        incoming: IncomingImage,
        name: str,
        delivery: Delivery,
    ) -> None:
        async with stack, self._sessions.at_official_work(session) as work:
            await work.set_image(_geometry_of(header), incoming, name, delivery)

    def _endpoint_of(self, operation: str) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            return await self._operate(request, operation)

        return endpoint

    async def _operate(self, request: Request, name: str) -> Response:
        """Carry out an operation of the library, and answer the part of the buffer that it changed."""
        patience, delivery = self._patience(), Delivery()
        session = await self._session(request, patience)
        async with contextlib.AsyncExitStack() as stack:
            operation = await self._receive(request, name, session, patience, stack)
            request_name = parameters.parse_request_id(request.headers)
            is_missing = MISSED_HEADER in request.headers
            work = self._carry_out(stack.pop_all(), session, operation, request_name, delivery, is_missing=is_missing)
        response = await self.in_time.run(work, delivery, patience.left)
        return response(request)

    async def _receive(
        self,
        request: Request,
        name: str,
        session: OfficialSession,
        patience: Patience,
        stack: contextlib.AsyncExitStack,
    ) -> Operation:
        if name not in MASKED:
            body = await official_bodies.receive_json(request)
            return Operation(name, wire.parse_fields(name, wire.parse_object(body or b"{}", "request")))
        fields = wire.parse_fields(name, wire.parse_object(request.headers.get(META_HEADER, "{}"), META_HEADER))
        image = session.files.manifest.image
        if image is None:
            raise BadRequest("There is no image yet: send one with set_image first.")
        shape = image.geometry.shape
        arrival = stack.enter_context(self._sessions.arriving_drawing(session))
        length = parameters.parse_content_length(request.headers)
        receiving = official_bodies.receive_mask(
            request, length, arrival, patience, lambda header: wire.check_mask(name, fields, header, shape)
        )
        return Operation(name, fields, await arrival.unless_refused(receiving))

    async def _carry_out(
        self,
        stack: contextlib.AsyncExitStack,
        session: OfficialSession,
        operation: Operation,
        name: str,
        delivery: Delivery,
        *,
        is_missing: bool,
    ) -> Callable[[Request], Response]:
        """Return what makes the response of a request, whose body is packed already."""
        async with stack, self._sessions.at_official_work(session) as work:
            if is_missing:  # of the request that was at work until now, perhaps
                work.session.delivery.is_missed = True
            answer, body = await work.operate(operation, name, delivery)
            buffer = work.session.carried.buffer
        if operation.name in PLAIN:
            return lambda request: JSONResponse({})
        dtype = buffer.dtype if buffer else ""
        return lambda request: PredictionResponse(request, answer, dtype, body, delivery)

    def _patience(self) -> Patience:
        return Patience(self.in_time.seconds)

    async def _session(self, request: Request, patience: Patience) -> OfficialSession:
        """Return the lease's session; waits for a server that is just ending to give it up."""
        return await patience.wait(self._find_released(request), "Another server of yours has this session.")

    async def _find_released(self, request: Request) -> OfficialSession:
        while True:
            with contextlib.suppress(Conflict):
                return await self._find(request)
            await asyncio.sleep(LOCK_SECONDS)

    async def _find(self, request: Request, is_use: bool = True) -> OfficialSession:
        token = request.headers.get(LEASE_HEADER)
        if not token:
            raise Gone(MISSING)
        if not TOKEN.fullmatch(token):
            raise Gone(UNKNOWN)
        session = await self._sessions.get_official(str(uuid.UUID(hex=token)), is_use=is_use)
        if request.headers.get(MISSED_HEADER):
            session.delivery.is_missed = True
        return session


async def healthz(request: Request) -> Response:
    """Answer that the server runs."""
    return JSONResponse({"ok": True})


def _geometry_of(header: Header) -> Geometry:
    _, a, b, c = header.shape
    return Geometry((a, b, c))


def _leaving(incoming: IncomingImage, arrival: Arrival, executors: Executors) -> Any:
    """Return an exit that removes a received image if the work on it has failed; what was only cut is kept."""

    async def leave(kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            await executors.codec(end_of_image(incoming, arrival, error))

    return leave
