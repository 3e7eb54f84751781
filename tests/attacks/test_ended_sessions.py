"""Row 7: uploads and prompts for sessions that are ended meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dls.errors import NotFound
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors
from dls.server.sessions.folders import Folders
from dls.server.sessions.registry import MAX_EMPTY_SESSIONS, SessionRegistry
from dls.server.sessions.store import SessionStore
from tests.support.engines import Painter
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap, described, form, packed
from tests.support.processes import until

SHAPE = (16, 24, 24)
IMAGE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def upload_while(snap: ItkSnap, port: int, folder: Path, meanwhile: Callable[[], None]) -> bytes:
    """Send all of an image but 100 bytes, do something, send the rest, and return the answer."""
    body, kind = form([("metadata", described(SHAPE)), ("file", packed(IMAGE))])
    head = f"POST /upload_raw/{snap.session} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    with socket.create_connection(("127.0.0.1", port)) as sent:
        sent.sendall(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body[:-100])
        until(lambda: list(folder.rglob(f"{snap.session}/image-*")))
        meanwhile()
        sent.sendall(body[-100:])
        return b"".join(iter(lambda: sent.recv(1 << 16), b""))


@pytest.mark.parametrize("how", ["ended", "evicted"])
def test_an_upload_for_a_session_that_was_ended_meanwhile(tmp_path: Path, how: str) -> None:
    """Row 7: an upload for a session that was ended, or was surplus, gets 404 and leaves no file and no memory."""
    engine = Painter()
    with serving(engine, folder=tmp_path) as server:
        snap, other = ItkSnap(server.port), ItkSnap(server.port)
        snap.start("painter")

        def end() -> None:
            if how == "ended":
                assert snap.get(f"/end_session/{snap.session}").status == 200
            else:
                for _ in range(MAX_EMPTY_SESSIONS + 1):
                    other.start("painter")

        answer = upload_while(snap, server.port, tmp_path, end)
        assert answer.startswith(b"HTTP/1.1 404") and b"choose another image" in answer
        assert engine.is_open == 0
        assert snap.point(1, 1, 1).status == 404
    assert not [path for path in tmp_path.rglob("*") if snap.session in path.name]


def test_requests_that_wait_for_a_session_that_is_ended(tmp_path: Path) -> None:
    """Row 7: what waited for a session's lock gets NotFound if it was ended, and the session if it was evicted."""

    async def scenario() -> None:
        engine, executors, readiness = Painter(), Executors(1), Readiness()
        store = SessionStore(Folders(tmp_path / "own" / "home")).open()
        registry = SessionRegistry(engine, executors, readiness, store, 1 << 20, engine.models)
        await readiness.load(engine, executors)
        evicted = await registry.start(None)
        await registry.evict_unused(evicted.last_used)
        async with registry.at_work(evicted) as work:
            assert work._session is not evicted and work._session is await registry.get(evicted.id)
        ended = await registry.start(None)
        async with registry.at_work(ended) as work:
            waiting = [asyncio.create_task(registry.sleep(ended)) for _ in range(3)]
            while len(ended.lock._waiters or ()) < 3:
                await asyncio.sleep(0)
            await work.end()
        results = await asyncio.gather(*waiting, registry.get(ended.id), return_exceptions=True)
        assert [type(result) for result in results] == [NotFound] * 4
        assert not list(tmp_path.rglob(f"*{ended.id}*"))
        registry.close()
        executors.close()

    asyncio.run(scenario())
