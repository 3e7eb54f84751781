"""What the server tells people about itself: `dls status`, and the line below "Ready" of a connected client."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dls import __version__
from dls.server.engines.base import Engine
from dls.server.engines.readiness import Readiness
from dls.server.gpu_watch import GpuWatch
from dls.server.http.activity import Activity
from dls.server.http.middleware import check_owner
from dls.server.http.recent import RecentRequests
from dls.server.sessions.registry import SessionRegistry


class Facts:
    """Answers the facts to the server's user, and to nobody else; a look at them is no use of the server."""

    def __init__(
        self,
        engine: Engine,
        sessions: SessionRegistry,
        readiness: Readiness,
        activity: Activity,
        requests: RecentRequests,
        gpu: GpuWatch,
        idle: float | None,
    ) -> None:
        self._engine = engine
        self._sessions = sessions
        self._readiness = readiness
        self._activity = activity
        self._requests = requests
        self._gpu = gpu
        self._idle = idle

    async def answer(self, request: Request) -> Response:
        """Answer the facts; raises HTTPException for a client that is not the server's user."""
        check_owner(request)
        awake, asleep = await self._sessions.count()
        return JSONResponse(
            {
                "release": __version__,
                "engine": self._engine.name,
                "model": self._engine.key,
                "device": self._engine.device,
                "gpu": self._gpu.describe(self._engine.device),
                "sessions": {"awake": awake, "asleep": asleep},
                "last": self._requests.describe_last_prompt(),
                "idle": round(self._activity.idle_seconds, 1),
                "ends_after": self._idle,
                **self._readiness.describe(),
            }
        )
