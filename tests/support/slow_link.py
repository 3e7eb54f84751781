"""A long way: a TCP proxy that hands every byte on a fixed time after it came, whatever else is on its way.

With a rate it is a thin way too, which takes only so many bytes a second. Also a program:
`python -m tests.slow_link HOST PORT SECONDS [RATE COUNT]` prints the port it listens on, and writes to the file COUNT
how many bytes have gone to the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 16
MOST_UNDERWAY = 64 << 20
"""Bytes that are on the way at once: more than a window of SSH, so that the way does not limit the throughput."""


class Thin:
    """Lets so many bytes a second pass, and counts them in a file."""

    def __init__(self, rate: float, count: Path) -> None:
        self._rate, self._count, self._passed = rate, count, 0

    async def take(self, size: int) -> None:
        self._passed += size
        part = self._count.with_suffix(".part")
        part.write_text(str(self._passed))
        part.replace(self._count)
        await asyncio.sleep(size / self._rate)


async def _carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float, thin: Thin | None = None
) -> None:
    """Hand on what comes, one way."""
    loop = asyncio.get_running_loop()
    underway: deque[tuple[float, bytes]] = deque()
    more = asyncio.Event()
    size = 0

    async def arrive() -> None:
        nonlocal size
        while True:
            while not underway:
                more.clear()
                await more.wait()
            at, data = underway.popleft()
            if (wait := at - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            size -= len(data)
            writer.write(data)
            await writer.drain()

    arriving = asyncio.ensure_future(arrive())
    try:
        while True:
            data = await reader.read(CHUNK)
            if thin is not None:
                await thin.take(len(data))
            underway.append((loop.time() + seconds, data))
            size += len(data)
            more.set()
            if not data:
                break
            while size > MOST_UNDERWAY:
                await asyncio.sleep(0.001)
        await arriving
    finally:
        arriving.cancel()


async def _serve(host: str, port: int, seconds: float, thin: Thin | None = None) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(host, port)
            try:
                await asyncio.gather(_carry(reader, far_writer, seconds, thin), _carry(far_reader, writer, seconds))
            finally:
                far_writer.close()
        writer.close()

    listener = socket.socket()
    if thin is not None:  # what the system takes ahead of us would be no thin way
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK)
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(connected, sock=listener, limit=CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def slow_link(
    host: str, port: int, seconds: float, rate: float | None = None, count: Path | None = None
) -> Iterator[int]:
    """Yield a local port from which it takes so many seconds to the host, one way, at `rate` bytes a second.

    The file `count` then says how many bytes have gone to the host.
    """
    command = [sys.executable, "-m", "tests.support.slow_link", host, str(port), str(seconds)]
    command += [] if rate is None else [str(rate), str(count)]
    here = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        narrow = Thin(float(sys.argv[4]), Path(sys.argv[5])) if len(sys.argv) > 4 else None
        asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), narrow))
