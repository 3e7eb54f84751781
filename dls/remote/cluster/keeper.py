"""Looks after the job while its server is used: tells of its end in time, and has its successor ready."""

from __future__ import annotations

import time
from collections.abc import Callable

from dls.remote.cluster.queue import LONGEST_PAUSES
from dls.remote.cluster.route import Route
from dls.remote.cluster.scheduler import JobState
from dls.remote.durations import format_duration
from dls.remote.progress import Reporter

NOTICES = (600.0, 120.0)
"""Seconds before a job's end at which the user is told."""
LEAD, LEAD_SHARE = 600.0, 0.5
"""Seconds before a job's end at which its successor is submitted, and the largest share of the job's time for that."""


class JobKeeper:
    """Remembers what was said and done about the end of the current job."""

    def __init__(self, route: Route, reporter: Reporter, clock: Callable[[], float] = time.monotonic) -> None:
        self._route = route
        self._reporter = reporter
        self._job = ""
        self._said: set[float] = set()
        self._lead = LEAD
        self._clock = clock
        self._next_look = 0.0
        """When the scheduler may be looked at again: each look costs its controller something."""

    def tick(self) -> str:
        """Look at the clock, seldom at the scheduler; returns the id of a successor that can be entered, else nothing.

        Raises what a look at the scheduler raises.
        """
        placed = self._route.placed
        if placed is None or placed.seconds_left is None:
            return ""
        if placed.job.id != self._job:
            self._job = placed.job.id
            self._said = {seconds for seconds in NOTICES if seconds >= placed.seconds_left}
            self._lead = min(LEAD, placed.seconds_left * LEAD_SHARE)
        if self._route.options.renew:
            return self._find_successor() if placed.seconds_left <= self._lead else ""
        for seconds in NOTICES:
            if placed.seconds_left <= seconds and seconds not in self._said:
                self._tell(seconds)
        return ""

    def _may_look(self) -> bool:
        """Return whether it is time for a look, which is then counted as done, also where it fails."""
        now = self._clock()
        if now < self._next_look:
            return False
        self._next_look = now + LONGEST_PAUSES[JobState.WAITING]
        return True

    def _tell(self, seconds: float) -> None:
        if not self._may_look():
            return
        # An admin may have given the job more time.
        self._route.look_after()
        self._say_once(
            seconds,
            ". The next click after that submits another one, and has to wait for it; --renew has one ready.",
            slack=30,
        )

    def _find_successor(self) -> str:
        if not self._may_look():
            return ""
        successor = self._route.find_successor()
        if successor.entrance is not None:
            return successor.id
        # It will hardly be there in time.
        state = f"would never start: {successor.hopeless}" if successor.hopeless else successor.reason or "starts"
        self._say_once(min(NOTICES), f", and the next one, {successor.id}, {state}. Clicks wait then.")
        return ""

    def _say_once(self, seconds: float, what_then: str, *, slack: float = 0.0) -> None:
        """Say that the job ends, if it does within these seconds and that was not said yet, and what happens then."""
        placed = self._route.placed
        left = None if placed is None else placed.seconds_left
        if placed is None or left is None or left > seconds + slack or seconds in self._said:
            return
        self._said.add(seconds)
        self._reporter.note(f"The job {placed.job.id} on {placed.job.node} ends in {format_duration(left)}{what_then}")
