"""A long way: a TCP proxy that hands every byte on a fixed time after it came, whatever else is on its way.

Also a program: `python -m tests.slow_link HOST PORT SECONDS` prints the port it listens on.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1 << 16
MOST_UNDERWAY = 64 << 20
"""Bytes that are on the way at once: more than a window of SSH, so that the way does not limit the throughput."""


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
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


async def _serve(host: str, port: int, seconds: float) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(host, port)
            try:
                await asyncio.gather(_carry(reader, far_writer, seconds), _carry(far_reader, writer, seconds))
            finally:
                far_writer.close()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def slow_link(host: str, port: int, seconds: float) -> Iterator[int]:
    """Yield a local port from which it takes so many seconds to the host, one way."""
    command = [sys.executable, "-m", "tests.support.slow_link", host, str(port), str(seconds)]
    here = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=here) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
