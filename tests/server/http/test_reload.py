"""What a client sees of an engine that is lost and loaded again."""

from __future__ import annotations

import threading

import numpy as np

from dls.errors import EngineLost
from dls.server.engines.base import ReportProgress
from tests.support.failing_engine import FailingEngine
from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import Answer, ItkSnap


class SlowlyReloaded(FailingEngine):
    """An engine that is lost at the first prompt, and whose second load takes until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_reloading, self.go_on = threading.Event(), threading.Event()

    def load(self, report: ReportProgress) -> None:
        super().load(report)
        if self.loads == 2:
            self.is_reloading.set()
            assert self.go_on.wait(60)
            self.failure = None


def with_image(server: LiveServer) -> ItkSnap:
    """Return a client whose session has an image."""
    snap = ItkSnap(server.port)
    snap.start("failing")
    assert snap.upload(np.zeros((3, 4, 5), np.float32)).status == 200
    return snap


def test_a_poll_succeeds_while_the_engine_is_loaded_again() -> None:
    """`/status` is answered with 200 at once while a click waits for the engine, and the click is answered then."""
    engine = SlowlyReloaded()
    with serving(engine) as server:
        snap = with_image(server)
        engine.failure = EngineLost("The engine's process died.")
        answers: list[Answer] = []
        click = threading.Thread(target=lambda: answers.append(snap.point(1, 1, 1)))
        click.start()
        assert engine.is_reloading.wait(60)
        answer = ItkSnap(server.port).get("/status")
        assert answer.status == 200 and answer.json["status"] == "ok" and answer.json["state"] == "loading"
        assert not answers
        engine.go_on.set()
        click.join()
        assert snap.mask(answers[0])[1, 1, 1] == 1


class LoadedAnew(FailingEngine):
    """An engine that is lost three times before a prompt has reached it."""

    def load(self, report: ReportProgress) -> None:
        super().load(report)
        if self.loads == 4:
            self.failure = None


def test_a_prompt_that_has_not_reached_the_engine_did_not_end_it() -> None:
    """It is given to the next one however often other prompts end it, and not refused as their cause."""
    engine = LoadedAnew()
    with serving(engine) as server:
        snap = with_image(server)
        engine.failure = EngineLost("The engine's process died.")
        engine.failure.was_sent = False
        assert snap.mask(snap.point(1, 1, 1))[1, 1, 1] == 1
        assert engine.loads == 4
