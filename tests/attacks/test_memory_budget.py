"""The memory budget holds while images and drawings arrive, wait for one another and are refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dls.errors import Exhausted, TooLarge
from dls.server.engines.region import RegionEngine
from dls.server.executors import Executors
from dls.server.sessions import budget as budgets
from dls.server.sessions.arrivals import Arrival
from dls.server.sessions.budget import MemoryBudget
from dls.server.sessions.session import Session
from dls.server.volume import Geometry
from tests.cli.test_serve import ServeProcess
from tests.support.itksnap import ItkSnap, described

LIMIT = 6400
"""Bytes; memory is reserved with a hundred bytes to spare."""


class Rooms:
    """A budget with two sessions without files, and threads on which uploads take memory."""

    def __init__(self, executors: Executors) -> None:
        files: Any = None
        self.first, self.second = Session("1", files), Session("2", files)
        self.budget = MemoryBudget(RegionEngine(), executors, LIMIT, {"1": self.first, "2": self.second})

    async def take(self, arrival: Arrival, size: int) -> None:
        await asyncio.to_thread(arrival.take, size)

    async def taking(self, arrival: Arrival, size: int) -> asyncio.Task[None]:
        """Let an upload take memory that is not there; return when it waits for it."""
        task = asyncio.create_task(self.take(arrival, size))
        while not arrival.is_waiting:
            assert not task.done()
            await asyncio.sleep(0.001)
        return task


@contextlib.asynccontextmanager
async def rooms() -> AsyncIterator[Rooms]:
    executors = Executors(1)
    yield Rooms(executors)
    executors.close()


def test_what_arrives_is_counted_and_released() -> None:
    """Row 9: an upload that has arrived in part keeps a session from its memory, until it ends."""

    async def scenario() -> None:
        async with rooms() as found:
            with found.budget.arriving_image(found.first, 0) as arrival:
                await found.take(arrival, 5000)
                opening = asyncio.create_task(found.budget.reserve(found.second, Geometry((10, 10, 10))))
                await asyncio.sleep(0.01)
                assert not opening.done()
            await asyncio.wait_for(opening, 30)
            assert found.second.reserved == 5000

    asyncio.run(scenario())


def test_what_a_session_takes_over_counts_once() -> None:
    """Row 9: the image that fills the budget is opened with the memory that its own upload has reserved."""

    async def scenario() -> None:
        async with rooms() as found:
            with found.budget.arriving_image(found.first, 0) as arrival:
                await found.take(arrival, 5000)
                arrival.is_handed_over = arrival.is_complete = True
                await asyncio.wait_for(found.budget.reserve(found.first, Geometry((10, 10, 12))), 30)
            assert found.first.reserved == 6000

    asyncio.run(scenario())


def test_an_upload_that_never_fits_is_refused() -> None:
    """Row 9: it gets 413 as soon as that is known, with 503 for one that does not fit at this moment."""

    async def scenario() -> None:
        async with rooms() as found:
            with found.budget.arriving_image(found.first, 0) as arrival, pytest.raises(TooLarge):
                await found.take(arrival, LIMIT + 1)

    asyncio.run(scenario())


def test_uploads_that_wait_for_one_another_end() -> None:
    """Row 9: the youngest is refused, so that the older ones get its memory."""

    async def scenario() -> None:
        async with rooms() as found, contextlib.AsyncExitStack() as stack:
            older = stack.enter_context(found.budget.arriving_image(found.first, 0))
            await found.take(older, 3000)
            with found.budget.arriving_image(found.second, 0) as younger:
                await found.take(younger, 3000)
                waiting = await found.taking(older, 2000)
                with pytest.raises(Exhausted):
                    await found.take(younger, 2000)
            await asyncio.wait_for(waiting, 30)
            assert older.reserved >= 5000

    asyncio.run(scenario())


def test_a_session_that_waits_comes_before_new_uploads() -> None:
    """Row 9: an upload that has begun goes on, one that has not waits until the session has its memory."""

    async def scenario() -> None:
        async with rooms() as found:
            with found.budget.arriving_image(found.first, 0) as begun:
                await found.take(begun, 3000)
                opening = asyncio.create_task(found.budget.reserve(found.second, Geometry((10, 10, 8))))
                while not found.budget._opening:
                    await asyncio.sleep(0.001)
                new = stack.enter_context(found.budget.arriving_image(found.first, 0))
                waiting = await found.taking(new, 100)
                await asyncio.wait_for(found.take(begun, 3000), 30)
                assert not opening.done() and not waiting.done()
            await asyncio.wait_for(opening, 30)
            await asyncio.wait_for(waiting, 30)

    with contextlib.ExitStack() as stack:
        asyncio.run(scenario())


def test_a_client_that_stopped_sending_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 9: an upload that does not go on is refused, in a sentence, for a session that has waited for its memory."""
    monkeypatch.setattr(budgets, "WAIT_SECONDS", 0.1)

    async def scenario() -> None:
        async with rooms() as found:

            async def stall() -> None:
                with found.budget.arriving_image(found.first, 0) as arrival:
                    await found.take(arrival, 5000)
                    await arrival.unless_refused(asyncio.sleep(3600))

            stalled = asyncio.create_task(stall())
            while not any(each.reserved for each in found.budget._images):
                await asyncio.sleep(0.001)
            await asyncio.wait_for(found.budget.reserve(found.second, Geometry((10, 10, 10))), 30)
            with pytest.raises(Exhausted):
                await stalled

    asyncio.run(scenario())


def test_images_that_were_sent_at_once_begin_one_after_the_other() -> None:
    """Row 9: an image whose announced length says that it will hardly fit beside another waits for that one."""

    async def scenario() -> None:
        async with rooms() as found:
            younger = stack.enter_context(found.budget.arriving_image(found.second, 1000))
            with found.budget.arriving_image(found.first, 1000) as older:
                await found.take(older, 3300)
                waiting = await found.taking(younger, 100)
                await asyncio.wait_for(found.take(older, 2000), 30)
                assert not waiting.done()
            await asyncio.wait_for(waiting, 30)

    with contextlib.ExitStack() as stack:
        asyncio.run(scenario())


def memory_of(pids: list[int]) -> int:
    """Return the memory of some processes together, in bytes; what they share counts once (proc(5), Pss)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


def processes_below(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in processes_below(int(child)))]


@contextlib.contextmanager
def watching(pids: list[int]) -> Iterator[list[int]]:
    """Measure the processes' memory again and again; gives a list with the most that it was."""
    most, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            most[0] = max(most[0], memory_of(pids))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


SIDE = 336
"""A volume of 336^3 zeros has 152 MB of float32 and 660 KB compressed."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bombs_and_scribbles_of_whole_volumes(tmp_path: Path) -> None:
    """Row 9: with `--max-memory 1`, 24 bombs and scribbles at once take at most 1.3 GiB, and clicks are answered."""
    bomb, metadata = gzip.compress(bytes(4 * SIDE**3), 9), described((SIDE,) * 3)
    volume = np.zeros((256, 256, 256), np.float32)
    volume[100:120, 100:120, 100:120] = 100
    scribble = gzip.compress(np.ones(volume.shape, np.float32).tobytes(), 9)
    statuses: list[tuple[str, int]] = []
    with ServeProcess("-p", "0", "--max-memory", "1", "--session-dir", str(tmp_path)) as serving:
        clicking = ItkSnap(serving.port)
        clicking.start()
        assert clicking.upload(volume).status == 200
        expected = clicking.mask(clicking.point(110, 110, 110))
        pids = processes_below(serving.process.pid)
        idle = memory_of(pids)

        def attack(number: int) -> None:
            snap = ItkSnap(serving.port)
            snap.start()
            for _ in range(3):
                statuses.append(("bomb", snap.post(f"/upload_raw/{snap.session}", bomb, metadata).status))
                path = f"/process_scribble_interaction/{clicking.session}?foreground=false"
                statuses.append(("scribble", snap.post(path, scribble, described(volume.shape)).status))

        with watching(pids) as most, ThreadPoolExecutor(24) as attackers:
            attacks = [attackers.submit(attack, number) for number in range(24)]
            while not all(each.done() for each in attacks):
                clicking.get(f"/reset_interactions/{clicking.session}")
                answer = clicking.point(110, 110, 110)
                assert answer.status == 200, answer.body
                np.testing.assert_array_equal(clicking.mask(answer), expected)
            for each in attacks:
                each.result()
        assert {status for kind, status in statuses if kind == "scribble"} <= {413, 503}
        assert {status for kind, status in statuses if kind == "bomb"} <= {200, 503}
        assert ("bomb", 200) in statuses
        print(f"{(most[0] - idle) / (1 << 30):.2f} GiB", {each: statuses.count(each) for each in statuses})
        assert most[0] - idle < 1.3 * (1 << 30)
