"""How official clients are answered: in time, and so that the server notices when an answer does not arrive."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dls.errors import Delayed, Exhausted, RequestError
from dls.server.engines.readiness import Readiness
from dls.server.sessions.official_records import OfficialAnswer
from dls.server.sessions.official_session import Delivery

T = TypeVar("T")

ANSWER_SECONDS = 48.0
"""How long a request may wait for the engine: clients give up after 60 s, and the local port answers after 50 s."""
IMAGE_SECONDS = 480.0
"""How long an image may wait: clients give it 600 s, and the local port 550 s."""
GOES_ON = "This request goes on, and the next answer brings what it changes."
TRY_AGAIN = "Try again in a moment."
PIECE_BYTES = 256 << 10
"""An answer is sent in pieces of this size; between them, the server looks whether the client is still there."""

log = logging.getLogger("dls.server")


class Patience:
    """The seconds that one request may still wait before it is answered; its own body does not count."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    async def wait(self, waiting: Awaitable[T], reason: str) -> T:
        """Wait, and count the time; raises Delayed with the reason when there is none left."""
        started = time.monotonic()
        try:
            return await asyncio.wait_for(waiting, max(0.0, self.left))
        except asyncio.TimeoutError:
            raise Delayed(reason) from None
        finally:
            self.left -= time.monotonic() - started


class InTime:
    """Runs work that goes on to its end even when the request that asked for it has been answered."""

    def __init__(self, readiness: Readiness, seconds: float = ANSWER_SECONDS) -> None:
        self._readiness = readiness
        self._tasks: set[asyncio.Task[Any]] = set()
        self.seconds = seconds
        """How long a request waits, but for images."""

    async def wait_ready(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for the engine; raises Delayed when it can't be loaded, or not in time."""
        try:
            await self.run(waiting, Delivery(), outlook=TRY_AGAIN)
        except Exhausted as error:
            raise Delayed(error.message) from error

    async def run(
        self,
        work: Coroutine[Any, Any, T],
        delivery: Delivery,
        seconds: float | None = None,
        outlook: str = GOES_ON,
    ) -> T:
        """Return the work's result; raises Delayed when it takes too long, and marks its answer as missed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finish)
        try:
            await asyncio.wait({task}, timeout=self.seconds if seconds is None else seconds)
        finally:
            if not task.done():
                delivery.is_missed = True
        if not task.done():
            raise Delayed(f"{self._describe()} {outlook}")
        return task.result()

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), RequestError):
            log.debug("a request was refused: %s", error.message)

    def _describe(self) -> str:
        """Return a sentence that says what takes so long."""
        now = self._readiness.describe()
        if not now:
            return "The engine needs longer for this than clients wait."
        share = f", {100 * now['done'] // now['total']} %" if now.get("total") else ""
        return f"The engine is not ready yet ({now.get('text') or now.get('error')}{share})."

    def close(self) -> None:
        """Cancel all work, because the server ends."""
        for task in self._tasks:
            task.cancel()


class PredictionResponse(Response):
    """The answer to an operation: a box in a header, and the packed part of the buffer; `delivery` says its fate."""

    media_type = "application/octet-stream"

    def __init__(self, request: Request, answer: OfficialAnswer, dtype: str, body: bytes, delivery: Delivery) -> None:
        super().__init__(body, headers={"X-Meta": _encode_meta(answer, dtype)})
        self._request, self._delivery = request, delivery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer piece by piece for as long as the client is there."""
        if await self._is_gone():
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        while len(body) > PIECE_BYTES:
            await send({"type": "http.response.body", "body": bytes(body[:PIECE_BYTES]), "more_body": True})
            body = body[PIECE_BYTES:]
            if await self._is_gone():
                return
        await send({"type": "http.response.body", "body": bytes(body)})

    async def _is_gone(self) -> bool:
        is_gone = await self._request.is_disconnected()
        if is_gone:
            self._delivery.is_missed = True
        return is_gone


def _encode_meta(answer: OfficialAnswer, dtype: str) -> str:
    fields: dict[str, Any] = {"ran_prediction": answer.ran, "bbox": answer.box}
    if answer.box is not None:
        fields |= {"dtype": dtype, "shape": [high - low for low, high in answer.box]}
    return json.dumps(fields, separators=(",", ":"))
