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


def kept(*looks: Job, renew: bool = False, seconds: float | None = 700.0) -> tuple[JobKeeper, Route, RecordingReporter]:
    """Return a keeper of a job with so many seconds left, and a scheduler that says these things."""
    reporter = RecordingReporter()
    route = Route(dls.ClusterOptions(renew=renew), dls.LoginOptions())
    host: Any = Nowhere()
    scheduler = Scripted([Look((look,)) for look in looks])
    route.placed = Placed(replace(JOB, seconds_left=seconds), scheduler, host, host, time.monotonic())
    return JobKeeper(route, reporter), route, reporter


def pass_time(route: Route, seconds: float) -> None:
    """Let the job have been entered so much earlier."""
    assert route.placed is not None
    route.placed = replace(route.placed, entered=route.placed.entered - seconds)


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
    assert [keeper.tick(), keeper.tick(), keeper.tick()] == ["", "", "8"]
    assert scheduler.submitted == ["7"] and reporter.notes == []
