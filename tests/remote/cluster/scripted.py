"""A scheduler that says what it is told to say, and a host on which nothing is run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from dls.remote.cluster.options import ClusterOptions
from dls.remote.cluster.scheduler import Look, Partition, SchedulerSilent
from dls.remote.ssh.shell import Completed
from dls.remote.ssh.target import Target


@dataclass
class Scripted:
    """A scheduler that says what it is told to say, look after look."""

    looks: list[Look | SchedulerSilent]
    name: str = "Slurm"
    in_use: bool = True
    submitted: list[str] = field(default_factory=list)
    """What each job that was submitted is the successor of."""

    def look(self, login: object, client_key: str = "", *, last: str = "", with_limits: bool = False) -> Look:
        now = self.looks.pop(0)
        if isinstance(now, SchedulerSilent):
            raise now
        return now

    def check(self, options: ClusterOptions, partitions: Iterable[Partition]) -> None: ...

    def submit(self, login: object, options: ClusterOptions, client_key: str, *, besides: str = "") -> str:
        self.submitted.append(besides)
        return "8"

    def cancel(self, login: object, ids: Iterable[str], *, wait: bool = False) -> list[str]:
        return list(ids)

    def is_in_use(self, login: object, id: str) -> bool:
        return self.in_use

    def step(self, id: str) -> str:
        return ""


class Nowhere:
    """A host on which nothing is run."""

    target = Target("login", "login", 22, "ann")

    def is_active(self) -> bool:
        return True

    def run(self, script: str, **_: object) -> Completed:
        raise AssertionError

    def append(self, path: str, offset: int, pieces: Iterable[bytes]) -> None:
        raise AssertionError
