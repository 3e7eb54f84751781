"""The queue: from a job that was found or submitted to one that can be entered. It has no time limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from dls.errors import HostError
from dls.remote.cluster.scheduler import Job, JobState, Look, Scheduler, SchedulerSilent
from dls.remote.durations import format_duration
from dls.remote.ssh.shell import ScriptRunner

FIRST_PAUSE, GROWTH = 0.1, 1.5
"""Seconds between the first two looks, and by what the pause grows: an idle cluster starts a job within a second."""
LONGEST_PAUSES = {JobState.WAITING: 20.0, JobState.STARTING: 1.0}
"""Longest pauses: Slurm's own cycle is 30 s or more, and every look costs its controller something."""
ENTRANCE_SECONDS = 120.0
"""Seconds after which a job that runs and can't be entered is given up."""


def wait(
    scheduler: Scheduler,
    login: ScriptRunner,
    id: str,
    client_key: str,
    say: Callable[[str], None],
    pause: Callable[[float], None] = time.sleep,
) -> Job:
    """Wait until the job can be entered, and return it; `say` gets its state as a sentence at each look.

    `pause` waits so many seconds, and may end the wait by an exception. Raises HostError for a job that has ended, that
    will never start, or that can't be entered, and what the login raises.
    """
    began = time.monotonic()
    started: float | None = None
    seconds = FIRST_PAUSE
    while True:
        state = JobState.WAITING
        try:
            look = scheduler.look(login, client_key, last=id)
        except SchedulerSilent as error:
            say(error.message.rstrip("."))
        else:
            job = _check(look, id, scheduler)
            if job.entrance is not None:
                return job
            state = job.state
            say(describe(job, scheduler.name, time.monotonic() - began))
            started = None if state is JobState.WAITING else started or time.monotonic()
            if started is not None and time.monotonic() - started > ENTRANCE_SECONDS:
                raise _unseen(job, login)
        pause(min(seconds, LONGEST_PAUSES[state]))
        seconds *= GROWTH


def _check(look: Look, id: str, scheduler: Scheduler) -> Job:
    """Return the job from what the scheduler says; raises HostError where there is no point in waiting for it."""
    job = look.find(id)
    failed = look.last_failed if job is None else job.failed
    if failed:
        raise HostError(
            f"The job {id} can't be used: {failed}.", "Its log is in the folder log of the remote directory."
        )
    if job is None:
        end = f": {look.last_end}" if look.last_end else ""
        raise HostError(f"The job {id} ended before it could be used{end}.", "Run the command again.")
    if job.hopeless:
        raise HostError(
            f"{scheduler.name} would never start the job {id}: {job.hopeless}.", "Change what is asked for."
        )
    return job


def _unseen(job: Job, login: ScriptRunner) -> HostError:
    return HostError(
        f"The job {job.id} runs on {job.node}, but {login.target.label} does not see its folder.",
        "Name a directory that the login node and the nodes share with --remote-dir.",
    )


def describe(job: Job, scheduler: str, elapsed: float) -> str:
    """Return how far the job is, as a sentence without its full stop."""
    if job.state is not JobState.WAITING:
        return f"The job {job.id} starts on {job.node or 'its node'}"
    parts = [f"The job {job.id} {job.reason or 'waits'}"]
    if job.place is not None and job.line > 1:
        parts.append(f"place {job.place} of {job.line} in line")
    if job.starts_in is not None and job.starts_in > 0:
        parts.append(f"{scheduler} expects it to start in {format_duration(job.starts_in)}")
    if elapsed >= 1:
        parts.append(f"{format_duration(elapsed)} so far")
    return ", ".join(parts)
