"""Four clients with four sessions each click at once, while the server and its engine are killed at random."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.connect import Client
from tests.faults.lab import Lab
from tests.faults.work import ItkSnapWork, Work

CLIENTS = 4
SESSIONS = 4
"""Number of sessions of each client."""
KILL_SECONDS = (4.0, 12.0)
"""Minimum and maximum number of seconds between two kills."""
STEP_SECONDS = 0.1


@dataclass
class Soak:
    """What has happened so far."""

    works: list[Work] = field(default_factory=list)
    kills: int = 0
    memory: list[int] = field(default_factory=list)
    """KiB of the server and its engine together, just before each kill."""

    @property
    def clicks(self) -> int:
        """Number of prompts that were answered or lost."""
        return sum(work.clicks for work in self.works)

    @property
    def lost(self) -> list[str]:
        """What was wrong or lost, a line each."""
        return [line for work in self.works for line in work.lost]

    @property
    def growth(self) -> float:
        """By which share the memory in use grew between the second quarter and the last."""
        quarter = max(1, len(self.memory) // 4)
        early, late = self.memory[quarter : 2 * quarter], self.memory[-quarter:]
        return sum(late) / len(late) / (sum(early) / len(early)) - 1 if early else 0.0

    def __str__(self) -> str:
        return (
            f"soak: {self.clicks} clicks in {CLIENTS * SESSIONS} sessions of {CLIENTS} clients, {self.kills} kills, "
            f"{len(self.lost)} wrong or lost, memory {self.growth:+.1%}"
        )


def lasting(seconds: float) -> Callable[[Soak], bool]:
    """Return a condition for `run` that holds when so many seconds are over."""
    deadline = time.monotonic() + seconds
    return lambda soak: time.monotonic() > deadline


def run(lab: Lab, is_enough: Callable[[Soak], bool], model: str = "region") -> Soak:
    """Let the clients work and the processes be killed until the condition holds."""
    stop = threading.Event()
    clients = [Client(lab) for _ in range(CLIENTS)]
    try:
        ports = [clients[number % CLIENTS].port for number in range(CLIENTS * SESSIONS)]
        soak = Soak([ItkSnapWork(port, 40, seed, model) for seed, port in enumerate(ports)])
        threads = [threading.Thread(target=_work, args=(work, stop)) for work in soak.works]
        for thread in threads:
            thread.start()
        _kill(lab, soak, is_enough)
        stop.set()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        for client in clients:
            client.close()
    return soak


def _work(work: Work, stop: threading.Event) -> None:
    work.begin()
    rng = random.Random(id(work))
    while not stop.is_set():
        rng.choice((work.click, work.click, work.scribble))()
        if work.clicks % 12 == 0:
            work.upload()
        work.check()
        stop.wait(rng.uniform(0, 0.5))


def _kill(lab: Lab, soak: Soak, is_enough: Callable[[Soak], bool]) -> None:
    rng = random.Random(0)
    while not is_enough(soak):
        next_kill = time.monotonic() + rng.uniform(*KILL_SECONDS)
        while time.monotonic() < next_kill:
            time.sleep(STEP_SECONDS)
            if is_enough(soak):
                return
        try:
            server, engine = lab.server(), lab.engine()
            soak.memory.append(_used(server) + _used(engine))
            os.kill(rng.choice((server, engine)), signal.SIGKILL)
            soak.kills += 1
        except (AssertionError, OSError, ValueError):
            continue  # a server or an engine is being started


def _used(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise ValueError(pid)
