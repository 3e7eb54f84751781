"""What a scheduler of jobs must do; each one's commands and words are in a module of its own."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from dls.errors import DlsError, HostError
from dls.remote.cluster.options import ClusterOptions
from dls.remote.ssh.shell import ScriptRunner


class JobState(enum.Enum):
    """How far a job is."""

    WAITING = "waiting"
    STARTING = "starting"
    """It has a node that is being got ready, or runs and can't be entered yet."""
    RUNNING = "running"


@dataclass(frozen=True)
class Entrance:
    """Where a job is entered: the SSH server that its batch script runs."""

    user: str
    addresses: tuple[str, ...]
    """Names of the node, as the scheduler and the node itself have them."""
    port: int
    """Its port; 0 on a node that has no sshd."""
    host_key: str
    """Its public key, as a line of authorized_keys has it."""


@dataclass(frozen=True)
class Job:
    """A job of ours, as the scheduler describes it."""

    id: str
    state: JobState
    reason: str = ""
    """Why it waits, in plain words; empty where the scheduler gives no reason."""
    node: str = ""
    seconds_left: float | None = None
    """Seconds until its time is over; None where that is unknown or has no limit."""
    starts_in: float | None = None
    """Seconds until the scheduler expects to start it; None where it does not say."""
    place: int | None = None
    """Its place in the line of those that wait for the same; None where that is unknown."""
    line: int = 0
    """How many wait for the same."""
    hopeless: str = ""
    """Why it will never start as it was submitted, as a sentence; empty where it may."""
    entrance: Entrance | None = None
    failed: str = ""
    """Why nobody can enter it, as its batch script says."""
    has_gpu: bool = True
    """Whether it may have a GPU: False for one that was submitted for an engine that uses none."""


@dataclass(frozen=True)
class Look:
    """What the scheduler says of this user's jobs that are ours."""

    jobs: tuple[Job, ...]
    last_end: str = ""
    """How the job ended that was asked for, as a clause: "its time is over"; empty where that is unknown."""
    last_failed: str = ""
    """Why nobody could enter that job, as its batch script said."""
    partitions: tuple[Partition, ...] = ()

    def find(self, id: str) -> Job | None:
        """Return the job with that id; None where it has ended."""
        return next((job for job in self.jobs if job.id == id), None)


@dataclass(frozen=True)
class Partition:
    """What a group of equal nodes of a partition (a queue) allows for one job."""

    name: str
    is_default: bool
    is_up: bool
    minutes: int | None
    """Longest time of a job; None for no limit."""
    cpus: int
    mem_mib: int
    gres: str
    """Generic resources of each node, as the scheduler writes them."""
    features: frozenset[str] = frozenset()


class Scheduler(Protocol):
    """One scheduler of jobs, spoken to by scripts on the login node."""

    @property
    def name(self) -> str:
        """What it is called in messages."""

    def look(self, login: ScriptRunner, client_key: str = "", *, last: str = "", with_limits: bool = False) -> Look:
        """Return the jobs of ours, and let the client key into them; `last` is a job whose end is asked for."""

    def check(self, options: ClusterOptions, partitions: Iterable[Partition]) -> None:
        """Raise HostError for what no partition allows, so that the job would never start."""

    def submit(self, login: ScriptRunner, options: ClusterOptions, client_key: str, *, besides: str = "") -> str:
        """Submit a job and return its id; empty where another client has submitted one meanwhile.

        `besides` is the id of the job whose successor it is.
        """

    def cancel(self, login: ScriptRunner, ids: Iterable[str], *, wait: bool = False) -> list[str]:
        """Cancel the jobs that are still there and return their ids; with `wait` when they have ended."""

    def is_in_use(self, login: ScriptRunner, id: str) -> bool:
        """Return whether a server runs in the job, or is about to: another client may have started it."""

    def step(self, id: str) -> str:
        """Return the command line that runs `sh` inside the job; empty where the scheduler has none."""


class SchedulerSilent(HostError):
    """The scheduler does not answer; it may do so later."""


class JobEnded(DlsError):
    """There is no job, and none is to be submitted now."""
