"""The registry of sessions and its memory budget."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from dls.errors import BadRequest
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors
from dls.server.sessions.budget import MemoryBudget
from dls.server.sessions.folders import Folders
from dls.server.sessions.registry import SessionRegistry
from dls.server.sessions.store import SessionStore
from dls.server.volume import Geometry, Volume
from tests.support.failing_engine import FailingEngine

GEOMETRY = Geometry((4, 5, 6))


def test_work_that_fails_lets_an_image_have_the_memory(tmp_path: Path) -> None:
    """An image that waits for the memory of a session at work gets it when that work ends with an error."""

    async def scenario() -> None:
        engine, workers, readiness = FailingEngine(), Executors(1), Readiness()
        store = SessionStore(Folders(tmp_path / "own" / "home")).open()
        registry = SessionRegistry(engine, workers, readiness, store, engine.session_bytes(120), engine.models)
        await readiness.load(engine, workers)
        busy, waiting = await registry.start(None), await registry.start(None)
        budget: MemoryBudget = registry._budget
        await budget.reserve(busy, GEOMETRY)
        busy.segmentation = engine.open(Volume(np.zeros(GEOMETRY.shape, np.float32), GEOMETRY))
        with pytest.raises(BadRequest):
            async with registry.at_work(busy):
                reservation = asyncio.create_task(budget.reserve(waiting, GEOMETRY))
                while not budget._changed._waiters:
                    await asyncio.sleep(0)
                raise BadRequest("No.")
        await asyncio.wait_for(reservation, 60)
        assert (busy.reserved, waiting.reserved) == (0, engine.session_bytes(120))
        registry.close()
        workers.close()

    asyncio.run(scenario())
