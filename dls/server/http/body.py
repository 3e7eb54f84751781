"""Receives the bodies of uploads: parses them on other threads while the event loop goes on receiving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from dls.errors import BadRequest
from dls.server.executors import Executors, SerialWorker
from dls.server.sessions.incoming import IncomingImage
from dls.server.volume import Geometry, Volume
from dls.server.wire.upload import DrawingSink, ImageSink, Sink, Upload

CHUNK_BYTES = 1 << 20
"""Number of bytes of a body that are parsed at a time, while the next ones arrive."""

Check = Callable[[Geometry], object]
"""Raises RequestError for a geometry that is refused; called on the event loop."""


class ThreadedSink:
    """A sink whose blocks are written by another thread."""

    def __init__(self, worker: SerialWorker, sink: Sink) -> None:
        self._worker = worker
        self._sink = sink

    def write(self, block: bytes) -> None:
        """Let the worker write the block."""
        self._worker.submit(self._sink.write, block)


class BodyReceiver:
    """Receives one request's body; an image may take up to `max_bytes` of memory."""

    def __init__(self, request: Request, executors: Executors, max_bytes: int, check: Check) -> None:
        self._request = request
        self._executors = executors
        self._max_bytes = max_bytes
        self._check = check

    @asynccontextmanager
    async def receive_image(self, incoming: IncomingImage) -> AsyncIterator[Volume]:
        """Receive an image into memory, and its compressed bytes into `incoming`.

        If the receiving or the body of the context fails, what was written to `incoming` is removed.
        """
        sink = ImageSink(self._max_bytes)
        writer = SerialWorker()
        try:
            threaded_sink = ThreadedSink(writer, sink)
            geometry = await self._receive(threaded_sink, lambda data: writer.submit(incoming.write, data))
            await self._executors.codec(writer.finish)
            yield sink.volume(geometry)
        except BaseException:
            await self._executors.codec(writer.close)
            await self._executors.codec(incoming.discard)
            raise
        finally:
            sink.close()

    async def receive_drawing(self) -> tuple[Geometry, DrawingSink]:
        """Receive a drawing; return the geometry of the volume that it was sent as, and the drawn voxels."""
        sink = DrawingSink()
        return await self._receive(sink), sink

    async def _receive(self, sink: Sink, save: Callable[[bytes], None] = lambda data: None) -> Geometry:
        content_type = self._request.headers.get("content-type", "")
        upload = Upload(content_type, sink, self._max_bytes, self._check_on(asyncio.get_running_loop()), save)
        parser = SerialWorker()
        try:
            async for data in self._chunks():
                if parser.is_full:  # wait on another thread: the event loop must not block
                    await self._executors.codec(parser.submit, upload.feed, data)
                else:
                    parser.submit(upload.feed, data)
            await self._executors.codec(parser.finish)
        except ClientDisconnect:
            raise BadRequest("The client went away in the middle of the request.") from None
        finally:
            await self._executors.codec(parser.close)
        return await self._executors.codec(upload.finish)

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Yield the body in chunks of about CHUNK_BYTES, the last one as soon as the body ends."""
        parts: list[bytes] = []
        size = 0
        async for part in self._request.stream():
            parts.append(part)
            size += len(part)
            if size >= CHUNK_BYTES or not part:  # an empty part ends the body
                chunk = b"".join(parts)
                parts, size = [], 0
                yield chunk

    def _check_on(self, loop: asyncio.AbstractEventLoop) -> Callable[[Geometry], None]:
        """Return a function that runs the check on the event loop: the body is parsed on a worker's thread."""

        async def check(geometry: Geometry) -> None:
            self._check(geometry)

        return lambda geometry: asyncio.run_coroutine_threadsafe(check(geometry), loop).result()
