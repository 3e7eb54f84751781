"""The way from a login to where the server runs: no further, or into a job of the cluster that the login leads to.

What only clusters need is imported where it is used: most connections need none of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from dls.engine_choice import AUTO, REGION
from dls.errors import DlsError, HostError, TargetError
from dls.remote.cluster import fit, queue
from dls.remote.cluster.options import ClusterOptions
from dls.remote.cluster.scheduler import Job, JobEnded, Scheduler
from dls.remote.durations import format_duration
from dls.remote.host.deploy import Deployment
from dls.remote.host.look import look
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport
from dls.remote.host.supply import OwnInternet, Supplier
from dls.remote.progress import Phase, Phases, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.options import LoginOptions

if TYPE_CHECKING:
    from dls.remote.cluster.entrance import NoWayIn
    from dls.remote.ssh.pinned import KeyPair


UNREACHABLE_SECONDS = 30.0
"""Seconds after which a job is ended whose node can't be reached any more."""
SUBMITTING_LOOKS = 5
"""Looks, a second apart, for a job whose submission was interrupted."""
MOST_FRUITLESS = 3
"""Jobs that are submitted in a row, for one who waits, without one that could be entered."""


@dataclass(frozen=True)
class Placed:
    """The job in which the server is."""

    job: Job
    scheduler: Scheduler
    login: Connection
    """The connection to the login node, through which the job was entered."""
    inner: Connection
    """The connection to the job's node."""
    entered: float
    """When it was entered, by `time.monotonic`."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the job's time is over; None where that has no limit or is unknown."""
        left = self.job.seconds_left
        return None if left is None else max(0.0, left - (time.monotonic() - self.entered))

    def describe(self) -> str:
        """Return the job in words: "12 on gpu07, for another 3 h 58 min"."""
        left = self.seconds_left
        return f"{self.job.id} on {self.job.node}{'' if left is None else f', for another {format_duration(left)}'}"


@dataclass
class Waiting:
    """How a wait in the queue is shown, and how it ends early."""

    say: Callable[[str], None] | None = None
    """Gets the job's state as a sentence; by default the phase "queue" shows it."""
    pause: Callable[[float], None] = time.sleep
    """Waits so many seconds, and raises what ends the wait."""


@dataclass
class Route:
    """Finds the way again and again, as connections and jobs end; remembers the job that was entered last."""

    options: ClusterOptions
    login: LoginOptions
    supplier: Supplier = field(default_factory=OwnInternet)
    """What stands in for the internet on a host that reaches none."""
    before_gpu: Callable[[], None] = lambda: None
    """Called before a job is submitted in which `auto` may mean nnInteractive; raises what forbids that."""
    placed: Placed | None = None
    submitted: tuple[Scheduler, Connection, str] | None = None
    """A job that was submitted and in which no server was seen yet; its id is empty while `sbatch` runs."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_abandoned: bool = False
    """Whether nothing more is submitted, because the session ends."""
    _is_for_auto: bool = False
    """Whether the engine is chosen in the job."""
    _can_do_without: bool = False
    """Whether a GPU is taken where there is one, and none where there is none."""
    _besides: str = ""
    """The job whose successor was submitted last."""
    _fruitless: int = 0
    """Jobs that were submitted since one was entered."""
    _successors: int = 0
    """Successors that were asked for since a job was entered, of which the scheduler may have refused some."""
    _out_of_reach: float | None = None
    """Since when the job that was entered last can't be entered any more."""

    def __post_init__(self) -> None:
        self.options.check()

    @cached_property
    def _key(self) -> KeyPair:
        """The key that lets this client into its jobs; it lives in memory."""
        from dls.remote.ssh.pinned import KeyPair

        return KeyPair.generate()

    def deploy(
        self,
        server: ServerOptions,
        connection: Connection,
        phases: Phases,
        *,
        reconnecting: bool = False,
        node: str = "",
        may_submit: bool = True,
        waiting: Waiting | None = None,
        besides: str = "",
    ) -> Deployment:
        """Look at the host, go into a job where the server belongs there, and return the deployment.

        The connection may be one to a login node, to a host of its own, or already inside a job; `besides` is the id of
        a job that is not to be entered, because it ends. Raises JobEnded where a job would have to be submitted and
        `may_submit` is false, and leaves the connection open in an error.
        """
        report = look(connection, self.login, server, phases, with_scheduler=self.options.mode != "here")
        if not report.job and self.placed is not None and connection is self.placed.inner:
            raise HostError(
                f"What runs on {connection.target.label} does not know its job.",
                "Its sshd has to be OpenSSH 7.8 or later.",
            )
        if self._wants_job(report, connection):
            placed = self._enter(server, connection, report, phases, may_submit, waiting or Waiting(), besides)
            try:
                return self.deploy(server, placed.inner, phases, reconnecting=reconnecting)
            except BaseException:
                placed.inner.transport.close()
                raise
        if not reconnecting and (note := fit.describe_unused(self.options, report, connection.target.label)):
            phases.reporter.note(note)
        if report.job:
            report = fit.without_gpus_of_others(report, server, self.placed.job if self.placed else None)
            server = fit.in_job(server, report.root)
        deployment = Deployment.probe(
            self.login, server, connection, phases,
            supplier=self.supplier, reconnecting=reconnecting, node=node, report=report,
        )  # fmt: skip
        if self._can_do_without and deployment.choice.engine == REGION:
            self.options = replace(self.options, gres="none")  # for the jobs that follow
        return deployment

    def _wants_job(self, report: HostReport, connection: Connection) -> bool:
        if report.job or self.options.mode == "here":
            return False
        if self.options.mode == "slurm" and not report.scheduler:
            raise HostError(
                f"{connection.target.label} has no Slurm: there is no sbatch.",
                "Leave out --slurm, or name the login node of a cluster.",
            )
        return bool(report.scheduler) and (self.options.mode == "slurm" or not report.has_gpu_device)

    def _enter(
        self,
        server: ServerOptions,
        login: Connection,
        report: HostReport,
        phases: Phases,
        may_submit: bool,
        waiting: Waiting,
        besides: str,
    ) -> Placed:
        if server.gpu is not None or server.device.startswith("cuda:"):
            raise TargetError(
                "--gpu and --device cuda:N number the GPUs of one host; in a job Slurm chooses the GPU.",
                "Leave them out; --gres says which kind, and how many, the job gets.",
            )
        from dls.remote.cluster.entrance import NoWayIn
        from dls.remote.cluster.slurm import Slurm

        self._is_for_auto = server.engine == AUTO
        self._can_do_without = self._is_for_auto and self.options.gres is None
        # A GPU that the engine does not use would be held for nothing, and is refused where there is none.
        self.options = self.options.filled(server.needs_gpus and server.device != "cpu")
        scheduler = Slurm(report.root)
        with phases("queue", f"Looking for a job on {login.target.label}") as phase:
            job, found = self._find_or_submit(scheduler, login, may_submit, besides)
            if job.entrance is None:
                say = waiting.say or phase.update
                job = queue.wait(scheduler, login, job.id, self._key.public, say, waiting.pause)
            try:
                inner = self._go_in(scheduler, login, job, report, phase)
            except NoWayIn as error:
                raise self._explain_no_way(scheduler, login, job, error) from error
            self.placed = Placed(job, scheduler, login, inner, time.monotonic())
            phase.result = f"{'Found' if found else 'Got'} the job {self.placed.describe()}"
        self._out_of_reach, self._fruitless, self._successors = None, 0, 0
        return self.placed

    def _explain_no_way(self, scheduler: Scheduler, login: Connection, job: Job, error: NoWayIn) -> DlsError:
        """End a job that was entered before and can't be any more: Slurm takes minutes to see that a node is dead."""
        if self.placed is None or self.placed.job.id != job.id:
            return error
        since = self._out_of_reach = self._out_of_reach or time.monotonic()
        if time.monotonic() - since < UNREACHABLE_SECONDS:
            return error
        scheduler.cancel(login, [job.id])
        return HostError(f"The node {job.node} does not answer any more: the job {job.id} was ended.", "Click again.")

    def _go_in(self, scheduler: Scheduler, login: Connection, job: Job, report: HostReport, phase: Phase) -> Connection:
        from dls.remote.cluster.entrance import enter

        folder = f"{report.root}/jobs"
        return enter(login, job, self._key, scheduler.step(job.id), folder, self.login.remote_dir, phase)

    def enter_running(self, login: Connection, report: HostReport) -> Connection | None:
        """Return a connection into the job that runs; None where there is none that can be entered now."""
        from dls.remote.cluster.slurm import Slurm

        scheduler = Slurm(report.root)
        for job in scheduler.look(login, self._key.public).jobs:
            if job.entrance is not None:
                return self._go_in(scheduler, login, job, report, Phase(Silent()))
        return None

    def _find_or_submit(
        self, scheduler: Scheduler, login: Connection, may_submit: bool, besides: str
    ) -> tuple[Job, bool]:
        """Return the job, and whether it was there already."""
        last = self.placed.job.id if self.placed else ""
        seen = scheduler.look(login, self._key.public, last=last, with_limits=may_submit)
        if others := [job for job in seen.jobs if job.id != besides]:
            if not self._can_do_without:
                fit.check_fits(others[0], self.options)
            return others[0], True
        if not may_submit:
            what = f"The job {last} has ended" if last else "There is no job"
            raise JobEnded(f"{what}: {seen.last_end}." if seen.last_end else f"{what}.")
        needed = not self._can_do_without
        self.options = fit.with_possible_gpu(scheduler, self.options, seen.partitions, is_needed=needed)
        if self._is_for_auto and self.options.gres != "none":
            self.before_gpu()
        if self._fruitless >= MOST_FRUITLESS:
            self._fruitless = 0
            raise JobEnded(f"{MOST_FRUITLESS} jobs in a row ended before they could be used.")
        self._fruitless += 1
        id = self._submit(scheduler, login, besides=besides)
        seen = scheduler.look(login, self._key.public, last=id)
        jobs = [job for job in seen.jobs if job.id == id] or [job for job in seen.jobs if job.id != besides]
        if not jobs:
            raise HostError(f"The job {id} ended at once.", f"Its log: log/job-{id}.log in the remote directory.")
        return jobs[0], not id

    def _submit(self, scheduler: Scheduler, login: Connection, *, besides: str = "") -> str:
        """Submit a job, which `abandon` knows of from the moment at which the scheduler may have it."""
        with self._lock:
            if self._is_abandoned:
                raise HostError("The session was closed.", "")
            self.submitted = (scheduler, login, "")
            self._besides = besides
        try:
            id = scheduler.submit(login, self.options, self._key.public, besides=besides)
        except HostError:  # the scheduler's own no
            self.submitted = None
            raise
        self.submitted = (scheduler, login, id) if id else None
        return id

    def look_after(self) -> Job | None:
        """Return the job that was entered as it is now; None where it has ended, or this is no cluster."""
        if self.placed is None:
            return None
        seen = self.placed.scheduler.look(self.placed.login, self._key.public)
        job = seen.find(self.placed.job.id)
        if job is not None:
            self.placed = replace(self.placed, job=job, entered=time.monotonic())
        return job

    def find_successor(self) -> Job:
        """Return the job that follows the one that was entered, submitted where there is none yet."""
        assert self.placed is not None
        scheduler, login, last = self.placed.scheduler, self.placed.login, self.placed.job.id
        others = [job for job in scheduler.look(login, self._key.public).jobs if job.id != last]
        if not others:
            if self._successors >= MOST_FRUITLESS:
                raise JobEnded(
                    f"{MOST_FRUITLESS} in a row were refused or ended at once, and no other one is submitted."
                )
            self._successors += 1
            self._submit(scheduler, login, besides=last)
            others = [job for job in scheduler.look(login, self._key.public).jobs if job.id != last]
        if not others:
            raise HostError("The job's successor ended at once.", "Its log is in the remote directory.")
        return others[0]

    def describe(self) -> str:
        """Return where the server runs, to follow a verb: " in the job 7 on gpu01"; empty where that is no job."""
        return f" in the job {self.placed.job.id} on {self.placed.job.node}" if self.placed else ""

    def settle(self) -> None:
        """Leave the job that was submitted to its batch script: a server runs in it, which ends it."""
        self.submitted = None

    def abandon(self) -> str:
        """Cancel a job that was submitted and in which no server runs, and submit no other one from now on.

        Returns its id, empty where nothing was cancelled.
        """
        with self._lock:
            self._is_abandoned = True
            submitted, self.submitted = self.submitted, None
        if submitted is None:
            return ""
        scheduler, login, id = submitted
        with contextlib.suppress(DlsError):
            if login.is_active() and (found := self._find_unused(scheduler, login, id)):
                return found if scheduler.cancel(login, [found]) else ""
        return ""

    def _find_unused(self, scheduler: Scheduler, login: Connection, id: str) -> str:
        """Return the job if no server runs in it; one whose submission was interrupted is waited for by its name."""
        for _ in range(SUBMITTING_LOOKS):
            jobs = [job for job in scheduler.look(login).jobs if job.id == id or (not id and job.id != self._besides)]
            if jobs:
                is_used = jobs[0].entrance is not None and scheduler.is_in_use(login, jobs[0].id)
                return "" if is_used else jobs[0].id
            if id:
                break
            time.sleep(1.0)
        return ""

    def back_out(self, connection: Connection) -> Connection | None:
        """Close a connection that leads into a job and return that to the login node; None for any other one."""
        if self.placed is None or connection is not self.placed.inner:
            return None
        connection.transport.close()
        return self.placed.login
