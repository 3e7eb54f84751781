"""Annotators at work, and the lab whose parts fail."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.faults.connect import Client
from tests.faults.lab import Lab
from tests.faults.polls import Polls
from tests.faults.work import Work


@dataclass
class Scene:
    """The annotators of one `dls connect`; all of them work at the same time."""

    lab: Lab
    client: Client
    works: list[Work]
    polls: list[Polls]
    since: float = 0.0
    """When the outage ended or, for a fault without an outage, when it happened."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds from then until the next click was answered, by the annotator's program."""
    waiting: dict[str, threading.Thread] = field(default_factory=dict)
    """Clicks that have not been answered yet."""

    def start_clock(self) -> None:
        """Measure the seconds until the next answers from now on."""
        self.since = time.monotonic()

    def click(self) -> None:
        """Let all annotators click at once, and wait for their answers."""
        _at_once(self.works, lambda work: work.click())

    def begin_click(self, work: Work) -> None:
        """Let one annotator click, and go on without an answer; the next click waits for it."""
        self.waiting[work.client] = threading.Thread(target=work.click)
        self.waiting[work.client].start()

    def next_answer(self, work: Work) -> None:
        """Let one annotator click, and remember when it was answered."""
        if work.client in self.waiting:
            self.waiting[work.client].join()
        work.click()
        self.seconds[work.client] = time.monotonic() - self.since

    def finish(self) -> None:
        """Let all annotators whose next answer was not measured yet click, then all draw, and compare the masks."""
        _at_once([work for work in self.works if work.client not in self.seconds], self.next_answer)
        _at_once(self.works, lambda work: work.scribble())
        for work in self.works:
            work.check()

    @contextlib.contextmanager
    def without_polls(self) -> Iterator[None]:
        """Make no poll meanwhile, as while the laptop is asleep."""
        with contextlib.ExitStack() as stack:
            for polls in self.polls:
                stack.enter_context(polls.stopped())
            yield


def _at_once(works: list[Work], act: Callable[[Work], None]) -> None:
    threads = [threading.Thread(target=act, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
