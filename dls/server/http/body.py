"""Receives the bodies of uploads: parses them on other threads while the event loop goes on receiving."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from dls.errors import BadRequest, Exhausted
from dls.server.executors import Executors, SerialWorker
from dls.server.sessions.arrivals import Arrival
from dls.server.sessions.incoming import IncomingImage
from dls.server.volume import Bool, Geometry, Volume
from dls.server.wire.upload import DrawingSink, ImageSink, Sink, Upload

T = TypeVar("T")

CHUNK_BYTES = 1 << 20
"""Number of bytes of a body that are parsed at a time, while the next ones arrive."""

CHUNKS_AHEAD = 4
"""Number of chunks that are held while the first of them is parsed."""

Crop = tuple[tuple[int, int, int], Bool]
"""Origin (z, y, x) and mask of the smallest box that holds a drawing."""
Check = Callable[[Geometry], object]
"""Raises RequestError for a geometry that is refused; called on the event loop."""


@contextlib.contextmanager
def translate_memory_errors() -> Iterator[None]:
    """Turn lack of memory into Exhausted: the request is refused and changes nothing."""
    try:
        yield
    except MemoryError:
        raise Exhausted(
            "The server has no memory for this at this moment; nothing was changed. Try again, or use a smaller image."
        ) from None


class Cut(BadRequest):
    """The client went away in the middle of the request."""


def end_of_image(incoming: IncomingImage, arrival: Arrival, error: BaseException) -> Callable[[], object]:
    """Return what is to be done with a received image after the error: it is removed, or kept where it was only cut.

    Where the server ends, nothing is: the session's manifest may begin to name the file in this moment.
    """
    if isinstance(error, asyncio.CancelledError):
        return lambda: None
    return incoming.leave if arrival.is_replaced or isinstance(error, Cut) else incoming.discard


class ThreadedSink:
    """A sink whose blocks are written by another thread, once there is memory for them.

    `take` is called with the number of bytes that a block will take.
    """

    def __init__(self, worker: SerialWorker, sink: Sink, take: Callable[[int], None]) -> None:
        self._worker = worker
        self._sink = sink
        self._take = take

    def write(self, block: bytes) -> None:
        """Let the worker write the block."""
        self._take(len(block) * 5 // 4)  # a voxel takes four bytes here, and one in the mask that it gets
        self._worker.submit(self._sink.write, block)


class BodyReceiver:
    """Receives one request's body; an image may take up to `max_bytes` of memory, which `arrival` counts."""

    def __init__(self, request: Request, executors: Executors, max_bytes: int, check: Check, arrival: Arrival) -> None:
        self._request = request
        self._executors = executors
        self._max_bytes = max_bytes
        self._check = check
        self._arrival = arrival

    @asynccontextmanager
    async def receive_image(self, incoming: IncomingImage) -> AsyncIterator[Volume]:
        """Receive an image into memory, and its compressed bytes into `incoming`, which may hold some of them already.

        If receiving or the caller's `with` block fails, what was written to `incoming` is removed. It is kept where the
        image was only cut, for a request that sends the rest.
        """
        with translate_memory_errors():
            sink = ImageSink(self._max_bytes)
        writer = SerialWorker()
        try:
            threaded_sink = ThreadedSink(writer, sink, self._arrival.take)
            with translate_memory_errors():
                geometry = await self._receive(
                    threaded_sink,
                    lambda upload: upload.finish(),
                    lambda data: writer.submit(incoming.write, data),
                    incoming,
                )
                await self._executors.codec(writer.finish)
                volume = sink.volume(geometry)
            yield volume
        except BaseException as error:
            await self._executors.codec(writer.close)
            await self._executors.codec(end_of_image(incoming, self._arrival, error))
            raise
        finally:
            sink.close()

    async def receive_drawing(self) -> tuple[Geometry, Crop | None]:
        """Receive a drawing; return the geometry of the volume that it was sent as, and the crop that holds it."""
        sink = DrawingSink(self._arrival.take)

        def finish(upload: Upload) -> tuple[Geometry, Crop | None]:
            geometry = upload.finish()
            return geometry, sink.crop(geometry)

        with translate_memory_errors():
            return await self._receive(sink, finish)

    async def _receive(
        self,
        sink: Sink,
        finish: Callable[[Upload], T],
        save: Callable[[bytes], object] = lambda data: None,
        incoming: IncomingImage | None = None,
    ) -> T:
        content_type = self._request.headers.get("content-type", "")
        check = self._check_on(asyncio.get_running_loop())
        upload = Upload(content_type, sink, self._max_bytes, check, save)
        parser = SerialWorker()
        try:
            return await self._arrival.unless_refused(self._feed(upload, parser, finish, incoming))
        except ClientDisconnect:
            raise Cut("The client went away in the middle of the request.") from None
        finally:
            await self._executors.codec(parser.close)

    async def _feed(
        self, upload: Upload, parser: SerialWorker, finish: Callable[[Upload], T], incoming: IncomingImage | None
    ) -> T:
        """Let the parser's thread parse the body, and receive only a little ahead of it: it may wait for memory.

        What the server holds of an image comes before the rest of it, and a copy after the dimensions.
        """
        fed: deque[Future[None]] = deque()
        if incoming is not None and incoming.held and not incoming.is_copy:
            fed.append(parser.submit(incoming.read_held, upload.feed_file))
        async for data in self._chunks():
            if len(fed) == CHUNKS_AHEAD:
                await asyncio.wrap_future(fed.popleft())
            fed.append(parser.submit(upload.feed, data))
        if incoming is not None and incoming.is_copy:
            parser.submit(incoming.read_held, upload.feed_file)
        return await asyncio.wrap_future(parser.submit(finish, upload))

    async def _chunks(self) -> AsyncIterator[bytes]:
        """Yield the body in chunks of about CHUNK_BYTES, the last one as soon as the body ends or is cut."""
        parts: list[bytes] = []
        size = 0
        try:
            async for part in self._request.stream():
                parts.append(part)
                size += len(part)
                if size >= CHUNK_BYTES or not part:  # an empty part ends the body
                    chunk = b"".join(parts)
                    parts, size = [], 0
                    yield chunk
        except ClientDisconnect:
            yield b"".join(parts)
            raise

    def _check_on(self, loop: asyncio.AbstractEventLoop) -> Callable[[Geometry], None]:
        """Return a function that runs the check on the event loop: the body is parsed on a worker's thread."""

        async def check(geometry: Geometry) -> None:
            self._check(geometry)

        return lambda geometry: asyncio.run_coroutine_threadsafe(check(geometry), loop).result()
