"""The sentences of the queue, and what ends a wait."""

from __future__ import annotations

import pytest

from dls.errors import HostError
from dls.remote.cluster.queue import describe, wait
from dls.remote.cluster.scheduler import Entrance, Job, JobState, Look, SchedulerSilent
from tests.remote.cluster.scripted import Nowhere, Scripted

ENTRANCE = Entrance("ann", ("n",), 1, "k k")
WAITING = Job("7", JobState.WAITING, reason="waits for a free GPU")
RUNNING = Job("7", JobState.RUNNING, node="n", entrance=ENTRANCE)


def waited(*looks: Look | SchedulerSilent) -> tuple[Job, list[str], list[float]]:
    """Wait for the job; returns it, what was said, and the pauses."""
    said: list[str] = []
    pauses: list[float] = []
    job = wait(Scripted(list(looks)), Nowhere(), "7", "", said.append, pauses.append)
    return job, said, pauses


def test_a_scheduler_that_is_silent_for_a_while() -> None:
    """A controller that restarts ends no wait of hours."""
    job, said, _ = waited(SchedulerSilent("Slurm does not answer."), Look((WAITING,)), Look((RUNNING,)))
    assert job is RUNNING
    assert said == ["Slurm does not answer", "The job 7 waits for a free GPU"]


def test_the_pauses_grow() -> None:
    """A job that waits for hours is looked at three times a minute at most, one that starts every second."""
    _, _, pauses = waited(*[Look((WAITING,))] * 30, Look((RUNNING,)))
    assert pauses[0] < 0.2 and max(pauses) == pauses[-1] == 20
    starting = Job("7", JobState.STARTING, node="n")
    _, _, pauses = waited(*[Look((starting,))] * 30, Look((RUNNING,)))
    assert max(pauses) == 1


@pytest.mark.parametrize(
    ("look", "sentence"),
    [
        (Look((), last_end="it was cancelled"), "The job 7 ended before it could be used: it was cancelled."),
        (Look((), last_failed="files can't be locked"), "The job 7 can't be used: files can't be locked."),
        (
            Look((Job("7", JobState.WAITING, hopeless="--qos is needed"),)),
            "Slurm would never start the job 7: --qos is needed.",
        ),
    ],
)
def test_what_ends_a_wait(look: Look, sentence: str) -> None:
    """A job that is gone, that nobody can enter or that will never start is not waited for."""
    with pytest.raises(HostError) as caught:
        waited(look)
    assert caught.value.message == sentence


def test_a_job_s_state_in_words() -> None:
    """What is unknown is left out."""
    assert describe(WAITING, "Slurm", 0) == "The job 7 waits for a free GPU"
    job = Job("7", JobState.WAITING, reason="waits behind others", place=3, line=17, starts_in=720)
    assert describe(job, "Slurm", 250) == (
        "The job 7 waits behind others, place 3 of 17 in line, Slurm expects it to start in 12 min, 4 min so far"
    )
    assert describe(Job("7", JobState.STARTING), "Slurm", 3) == "The job 7 starts on its node"
