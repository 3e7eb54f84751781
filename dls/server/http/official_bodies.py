"""Receives the bodies of official clients: JSON, and arrays that are checked before anything of them is inflated."""

from __future__ import annotations

import mmap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from dls.errors import BadRequest, TooLarge
from dls.server.executors import Executors
from dls.server.http.body import CHUNK_BYTES, Cut
from dls.server.http.official_answers import Patience
from dls.server.sessions.arrivals import Arrival
from dls.server.sessions.incoming import IncomingImage
from dls.server.wire import nnia
from dls.server.wire.nnia import Header

MAX_JSON_BYTES = 1 << 20
"""Largest body of a request that has no array."""
MAX_MASK_BYTES = 1 << 30
"""Largest packed mask: a journal keeps it as it came."""
NO_MEMORY = "The server's memory is taken by others at this moment. Send this again in a minute."

Check = Callable[[Header], object]
"""Raises RequestError for an array that is refused."""


async def receive_json(request: Request) -> bytes:
    """Receive a body without an array. Raises TooLarge."""
    body = b""
    async for chunk in _chunks(request):
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise TooLarge(f"This request takes no body of more than {MAX_JSON_BYTES >> 10} KiB.")
    return body


async def receive_mask(request: Request, length: int, arrival: Arrival, patience: Patience, check: Check) -> bytes:
    """Receive an array into memory; `check` sees its head as soon as that is there. Raises Delayed without memory."""
    body, header = bytearray(), None
    async for chunk in _chunks(request):
        body += chunk
        if header is None and (header := nnia.read_header(bytes(body[:4096]))) is not None:
            _check_head(header, length, check)
            await patience.wait(arrival.reserve(header.bytes), NO_MEMORY)
        if header is not None and len(body) > min(header.longest, MAX_MASK_BYTES):
            raise TooLarge("The array is longer than its head says.")
        await patience.wait(arrival.reserve(len(chunk)), NO_MEMORY)
    if header is None:
        raise BadRequest("The array is cut short in its head.")
    nnia.check_chunks(header, body, len(body))
    return bytes(body)


async def receive_image(
    request: Request, length: int, incoming: IncomingImage, executors: Executors, arrival: Arrival, check: Check
) -> Header:
    """Receive an array into a file, as it comes; `check` sees its head as soon as that is there.

    The file may hold the beginning of the array already, or all of it. `length` is that of the whole array.
    """
    head, header = b"", None
    if incoming.held:
        head = await executors.codec(_read_head, incoming.path)
        if (header := nnia.read_header(head)) is not None:
            _check_head(header, length, check)
        await arrival.reserve(incoming.held)
    async for chunk in _chunks(request):
        if header is None:
            head += chunk[:4096]
            if (header := nnia.read_header(head)) is not None:
                _check_head(header, length, check)
        await arrival.reserve(len(chunk))
        await executors.codec(incoming.write, chunk)
        if header is not None and incoming.length > header.longest:
            raise TooLarge("The array is longer than its head says.")
    if header is None:
        raise BadRequest("The array is cut short in its head.")
    await executors.codec(_check_file, header, incoming.path, incoming.length)
    return header


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def _check_head(header: Header, length: int, check: Check) -> None:
    nnia.check_length(header, length)
    check(header)


def _check_file(header: Header, path: Path, length: int) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        nnia.check_chunks(header, data, length)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the body in chunks of about CHUNK_BYTES; the first one as it comes, so that a head is seen early."""
    parts: list[bytes] = []
    size, wanted = 0, 1
    try:
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size >= wanted or (size and not part):
                yield b"".join(parts)
                parts, size, wanted = [], 0, CHUNK_BYTES
    except ClientDisconnect:
        yield b"".join(parts)
        raise Cut("The client went away in the middle of the request.") from None
