"""Sixteen sessions of four clients that click at once, while the server is killed at random."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.lab import Client, Lab, Work

CLIENTS = 4
SESSIONS = 4
"""Of each client."""
KILL_SECONDS = (4.0, 12.0)
"""Between two kills, of the server or of the engine."""


@dataclass
class Soak:
    """How it went."""

    clicks: int = 0
    kills: int = 0
    lost: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """KiB of the server and its engine together, just before each kill, and at the end."""

    @property
    def growth(self) -> float:
        """Of the memory in use, between the second quarter and the last."""
        quarter = max(1, len(self.memory) // 4)
        early, late = self.memory[quarter : 2 * quarter], self.memory[-quarter:]
        return sum(late) / len(late) / (sum(early) / len(early)) - 1 if early else 0.0

    def __str__(self) -> str:
        return (
            f"soak: {self.clicks} clicks in {CLIENTS * SESSIONS} sessions of {CLIENTS} clients, {self.kills} kills, "
            f"{len(self.lost)} wrong or lost, memory {self.growth:+.1%}"
        )


def run(lab: Lab, seconds: float) -> Soak:
    """Let them work for so long."""
    soak, stop = Soak(), threading.Event()
    clients = [Client(lab) for _ in range(CLIENTS)]
    try:
        works = [Work(clients[number % CLIENTS].port, 40, seed=number) for number in range(CLIENTS * SESSIONS)]

        def work(one: Work) -> None:
            one.begin()
            rng = random.Random(id(one))
            while not stop.is_set():
                rng.choice((one.click, one.click, one.scribble))()
                if one.clicks % 12 == 0:
                    one.upload()
                stop.wait(rng.uniform(0, 0.5))

        threads = [threading.Thread(target=work, args=(one,)) for one in works]
        for thread in threads:
            thread.start()
        _harm(lab, soak, time.monotonic() + seconds)
        stop.set()
        for thread in threads:
            thread.join()
        soak.clicks = sum(one.clicks for one in works)
        soak.lost = [what for one in works for what in one.lost]
    finally:
        for client in clients:
            client.close()
    return soak


def _harm(lab: Lab, soak: Soak, until: float) -> None:
    rng = random.Random(0)
    while time.monotonic() < until:
        time.sleep(min(rng.uniform(*KILL_SECONDS), max(0.0, until - time.monotonic())))
        try:
            server, engine = lab.server(), lab.engine()
            soak.memory.append(_used(server) + _used(engine))
            if time.monotonic() < until:
                os.kill(rng.choice((server, engine)), signal.SIGKILL)
                soak.kills += 1
        except (AssertionError, OSError, ValueError):
            continue  # it is being started


def _used(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(pid)
