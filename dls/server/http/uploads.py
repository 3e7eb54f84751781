"""The routes of images: those that are sent, and what the client asks before it sends one again.

An image crosses the link once. The client asks whether the server holds an image of certain contents, or how much of an
upload that was cut, and then sends an upload that leaves that out. Only the server's own user may do so: to everybody
else these routes do not exist, and the headers mean nothing.
"""

from __future__ import annotations

import asyncio

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dls.errors import BadRequest, NotHeld, TooLarge
from dls.server.executors import Executors
from dls.server.http import parameters
from dls.server.http.body import BodyReceiver
from dls.server.http.middleware import OWNER, check_owner
from dls.server.sessions.images import SentImage
from dls.server.sessions.incoming import NOTHING_HELD, IncomingImage
from dls.server.sessions.registry import SessionRegistry
from dls.server.sessions.session import Session


class UploadEndpoints:
    """The routes' coroutines and what they share."""

    def __init__(self, sessions: SessionRegistry, executors: Executors) -> None:
        self._sessions = sessions
        self._executors = executors
        self._images = sessions.images

    async def upload(self, request: Request) -> Response:
        """Receive the session's image, and write it to the session's files as it arrives."""
        session = await self._sessions.get(request.path_params["session"])
        sent = parse_sent_image(request)
        incoming = await self._images.receive(session, sent)
        # Free the old image's memory for the new one. If the new one is refused, the next prompt loads the old one.
        releasing = asyncio.create_task(self._sessions.sleep(session))
        try:
            await self._receive(request, session, sent, incoming)
        except (BadRequest, TooLarge) as error:
            if incoming.held:  # what is held may be what is wrong
                raise NotHeld(NOTHING_HELD) from error
            raise
        finally:
            await releasing
        if sent.name and not sent.copy:
            self._images.share(session)
        return JSONResponse({"message": "NIFTI file uploaded and stored in GPU memory"})

    async def _receive(self, request: Request, session: Session, sent: SentImage, incoming: IncomingImage) -> None:
        with (
            self._sessions.arriving_image(session, incoming.expected) as arrival,
            session.uploading(sent.name, arrival),
        ):
            limit, check = self._sessions.largest_image, self._sessions.check_size
            body = BodyReceiver(request, self._executors, limit, check, arrival)
            async with body.receive_image(incoming) as volume:
                if sent.copy and not await self._images.is_whole(sent.copy, incoming):
                    raise NotHeld(NOTHING_HELD)
                if not sent.length:
                    await self._images.make_room(session)
                async with self._sessions.at_work(session) as work:
                    arrival.is_handed_over = True
                    await work.set_image(volume, incoming, parameters.parse_request_id(request.headers))

    async def find_image(self, request: Request) -> Response:
        """Say whether the server holds an image of that name."""
        check_owner(request)
        name = request.path_params["image"]
        return JSONResponse({"image": name, "held": await self._images.has_copy(name)})

    async def find_part(self, request: Request) -> Response:
        """Say how many bytes the server holds of the image that a request sent until it was cut, and their digest."""
        check_owner(request)
        name = request.path_params["request"]
        if not parameters.PART_NAME.fullmatch(name):
            raise HTTPException(404)
        session = await self._sessions.find(request.path_params["session"], is_use=False)
        held, digest = await self._images.find_part(session, name)
        return JSONResponse({"request": name, "held": held, "sha256": digest})


def parse_sent_image(request: Request) -> SentImage:
    """Return what a request sends of an image; raises BadRequest for headers that make no sense."""
    return parameters.parse_sent_image(request.headers, is_owner=bool(request.scope.get(OWNER)))
