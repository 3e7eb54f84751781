"""What the server says of itself to its own user: engine, GPUs, sessions, the last requests, and the log's last lines.

`dls connect` asks for it on behalf of its page. To everybody else these addresses do not exist.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dls.contract import OVERVIEW_PATH, PICTURES_PATH
from dls.server.engines.base import Engine
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors
from dls.server.gpu_watch import GpuWatch
from dls.server.http.middleware import check_owner
from dls.server.http.recent import RecentRequests
from dls.server.log_tail import LogTail
from dls.server.pictures.gallery import Gallery, can_be_drawn, version_of
from dls.server.sessions.registry import SessionRegistry
from dls.server.sessions.store import StoredManifest

MAX_SESSIONS = 12
"""Number of sessions that are shown, those used last."""


class Overview:
    """Describes the server while it runs."""

    def __init__(
        self,
        engine: Engine,
        sessions: SessionRegistry,
        executors: Executors,
        readiness: Readiness,
        requests: RecentRequests,
        log: LogTail,
        gpu: GpuWatch,
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._executors = executors
        self._readiness = readiness
        self._requests = requests
        self._log = log
        self._gallery = Gallery(executors)
        self._gpu = gpu
        self._stored: dict[str, StoredManifest] = {}
        """The sessions that were listed last, by the names of their pictures."""

    async def describe(self) -> dict[str, Any]:
        """Return everything that is shown; the time of the server's clock is `now`."""
        stored = await self._executors.codec(self._sessions.list_stored, MAX_SESSIONS)
        self._stored = {name_of(each.manifest.id): each for each in stored}
        loading = self._readiness.describe()
        return {
            "now": time.time(),
            "engine": {"name": self._engine.name, "device": self._engine.device, "state": "ready", **loading},
            "gpus": [
                {"name": gpu.name, "used": gpu.memory_total - gpu.memory_free, "total": gpu.memory_total}
                for gpu in self._gpu.list()
            ],
            "sessions": [self._describe_session(each) for each in stored],
            "requests": self._requests.list(),
            "log": list(self._log.lines),
        }

    def _describe_session(self, stored: StoredManifest) -> dict[str, Any]:
        manifest = stored.manifest
        assert manifest.image is not None
        geometry = manifest.image.geometry
        return {
            "id": manifest.id[:8],
            "name": name_of(manifest.id),
            "version": version_of(manifest),
            "has_picture": can_be_drawn(manifest),
            "model": manifest.model,
            "size": list(reversed(geometry.shape)),
            "spacing": list(reversed(geometry.spacing)),
            "prompts": manifest.end.count if manifest.end else 0,
            "awake": self._sessions.is_awake(manifest.id),
            "used": self._sessions.used_at(manifest.id) or stored.changed,
        }

    async def picture(self, name: str, version: str) -> bytes | None:
        """Return the picture of a session that was listed; None where it has changed since."""
        stored = self._stored.get(name)
        if stored is None or version_of(stored.manifest) != version or not can_be_drawn(stored.manifest):
            return None
        return await self._gallery.picture(stored.manifest, stored.folder)

    def routes(self) -> list[Route]:
        """Return the routes for the server's own user."""
        return [
            Route(OVERVIEW_PATH, self.answer_overview, methods=["GET"]),
            Route(PICTURES_PATH + "/{name}/{version}", self.answer_picture, methods=["GET"]),
        ]

    async def answer_overview(self, request: Request) -> Response:
        """Answer the server's own user."""
        check_owner(request)
        return JSONResponse(await self.describe())

    async def answer_picture(self, request: Request) -> Response:
        """Answer the server's own user with a session's picture."""
        check_owner(request)
        picture = await self.picture(request.path_params["name"], request.path_params["version"])
        if picture is None:
            raise HTTPException(404)
        return Response(picture, media_type="image/png")


def name_of(session: str) -> str:
    """Return the name of a session's picture: whoever knows it can't use the session."""
    return hashlib.sha256(session.encode()).hexdigest()[:16]
