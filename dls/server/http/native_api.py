"""The engine's own HTTP API, beside the routes for ITK-SNAP."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send


class NativeApi:
    """Passes requests on to the engine's own application, and answers 404 until one is mounted."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    async def mount(self, app: Any, stack: AsyncExitStack) -> None:
        """Start the application and pass requests on to it from now on; it is shut down when the stack is closed.

        An engine without an API of its own gives None: all its addresses stay 404.
        """
        if app is None:
            return
        if hasattr(app, "router"):
            # Starlette does not run the lifespan of a mounted application. Without it, expired sessions would stay.
            await stack.enter_async_context(app.router.lifespan_context(app))
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or raise a 404."""
        if self._app is None:
            raise HTTPException(404)
        await self._app(scope, receive, send)
