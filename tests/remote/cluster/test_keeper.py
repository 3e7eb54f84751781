"""What is said and done before a job's end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import dls
from dls.remote.cluster.keeper import JobKeeper
from dls.remote.cluster.route import Placed, Route
from dls.remote.cluster.scheduler import Entrance, Job, JobState, Look
from tests.remote.cluster.scripted import Nowhere, Scripted
from tests.support.connecting import RecordingReporter

JOB = Job("7", JobState.RUNNING, node="gpu07", entrance=Entrance("ann", ("gpu07",), 1, "k k"), seconds_left=700.0)


CLOCK = [100.0]
"""The keeper's time."""


def kept(*looks: Job, renew: bool = False, seconds: float | None = 700.0) -> tuple[JobKeeper, Route, RecordingReporter]:
    """Return a keeper of a job with so many seconds left, and a scheduler that says these things."""
    reporter = RecordingReporter()
    route = Route(dls.ClusterOptions(renew=renew), dls.LoginOptions())
    host: Any = Nowhere()
    scheduler = Scripted([Look((look,)) for look in looks])
    route.placed = Placed(replace(JOB, seconds_left=seconds), scheduler, host, host, time.monotonic())
    keeper = JobKeeper(route, reporter, lambda: CLOCK[0])
    return keeper, route, reporter


def pass_time(route: Route, seconds: float) -> None:
    """Let the job have been entered so much earlier."""
    assert route.placed is not None
    route.placed = replace(route.placed, entered=route.placed.entered - seconds)
    CLOCK[0] += seconds


def test_ten_and_two_minutes_before_the_end() -> None:
    """Each notice comes once, with what is left by the scheduler's own account."""
    keeper, route, reporter = kept(replace(JOB, seconds_left=590.0), replace(JOB, seconds_left=110.0))
    keeper.tick()
    assert reporter.notes == []
    pass_time(route, 110)
    keeper.tick()
    keeper.tick()
    assert [note[:37] for note in reporter.notes] == ["The job 7 on gpu07 ends in 10 min. Th"]
    pass_time(route, 480)
    keeper.tick()
    keeper.tick()
    assert len(reporter.notes) == 2 and "ends in 1" in reporter.notes[1]


def test_more_time_is_no_news() -> None:
    """A job that an admin gave more time does not end in ten minutes."""
    keeper, route, reporter = kept(replace(JOB, seconds_left=3600.0))
    keeper.tick()
    pass_time(route, 110)
    keeper.tick()
    assert reporter.notes == []


def test_a_job_without_an_end() -> None:
    """Where the partition has no limit, nothing is said or submitted."""
    keeper, _, reporter = kept(seconds=None, renew=True)
    assert keeper.tick() == "" and reporter.notes == []


def test_a_successor_is_submitted_once() -> None:
    """With `renew` the next job is asked for ten minutes before the end, and is there when it can be entered."""
    waiting = Job("8", JobState.WAITING)
    keeper, route, reporter = kept(JOB, waiting, waiting, replace(JOB, id="8"), renew=True, seconds=7200.0)
    assert route.placed is not None
    scheduler = route.placed.scheduler
    assert isinstance(scheduler, Scripted)
    assert keeper.tick() == "" and scheduler.submitted == []
    pass_time(route, 6601)
    assert [keeper.tick(), keeper.tick()] == ["", ""] and len(scheduler.looks) == 2  # the second one is too early
    ticks = []
    for _ in range(2):
        pass_time(route, 20)
        ticks.append(keeper.tick())
    assert ticks[-1] == "8"
    assert scheduler.submitted == ["7"] and reporter.notes == []


def test_a_successor_that_waits_too_long() -> None:
    """With `renew` too the user is told two minutes before the end, if the next job will hardly be there in time."""
    waiting = Job("8", JobState.WAITING, reason="waits for a free GPU")
    keeper, route, reporter = kept(*[waiting] * 5, renew=True, seconds=7200.0)
    keeper.tick()
    pass_time(route, 6700)
    assert keeper.tick() == "" and reporter.notes == []
    for _ in range(2):
        pass_time(route, 400 if not reporter.notes else 20)
        assert keeper.tick() == ""
    [note] = reporter.notes
    assert note.startswith("The job 7 on gpu07 ends in ") and "the next one, 8, waits for a free GPU." in note


def test_successors_that_end_at_once() -> None:
    """After three in a row no other one is submitted, and the scheduler is looked at every 20 s at most."""
    keeper, route, _ = kept(*[JOB] * 20, renew=True, seconds=100.0)
    assert route.placed is not None
    scheduler = route.placed.scheduler
    assert isinstance(scheduler, Scripted)
    keeper.tick()
    pass_time(route, 60)
    errors = []
    for _ in range(24):
        try:
            keeper.tick()
        except dls.DlsError as error:
            errors.append(error.message)
        CLOCK[0] += 5
    assert scheduler.submitted == ["7"] * 3
    assert len(errors) == 6 and "no other one is submitted" in errors[-1]


def test_a_session_that_is_closed_while_a_job_is_submitted() -> None:
    """A job whose id was not heard yet is found by its name and cancelled; nothing is submitted after that."""
    keeper, route, _ = kept(JOB, renew=True, seconds=100.0)
    keeper.tick()
    assert route.placed is not None
    scheduler, host = route.placed.scheduler, route.placed.login
    assert isinstance(scheduler, Scripted) and isinstance(host, Nowhere)
    scheduler.looks[:] = [Look((JOB, Job("8", JobState.WAITING))), Look((JOB,))]
    route.submitted, route._besides = (scheduler, route.placed.login, ""), "7"
    assert route.abandon() == "8"
    pass_time(route, 60)
    try:
        keeper.tick()
    except dls.HostError as error:
        assert error.message == "The session was closed."
    assert scheduler.submitted == []


def test_a_job_in_which_a_server_runs_is_left() -> None:
    """Two laptops share a job: the one that submitted it does not end it for the other one."""
    _, route, _ = kept(JOB)
    assert route.placed is not None
    route.submitted = (route.placed.scheduler, route.placed.login, "7")
    assert route.abandon() == ""
    scheduler = route.placed.scheduler
    assert isinstance(scheduler, Scripted)
    scheduler.looks, scheduler.in_use = [Look((JOB,))], False
    route.submitted = (scheduler, route.placed.login, "7")
    assert route.abandon() == "7"
