"""Until when a request of an official client is held."""

from __future__ import annotations

import pytest

from dls.remote.tunnel.deadline import Deadline


class SetClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


def test_a_prompt_has_its_seconds_from_its_last_byte(clock: SetClock) -> None:
    """While it is read the time begins anew with each byte; from its end on nothing extends it."""
    deadline = Deadline(50, 50, 5, clock)
    clock.now += 40
    deadline.extend()
    assert deadline.left == 50
    clock.now += 10
    deadline.set_limit()
    for _ in range(5):
        clock.now += 10
        deadline.set_limit()
        deadline.extend()
        deadline.wait_for_answer()
    assert (deadline.left, deadline.left_for_answer) == (0, 5)


def test_an_image_has_longer_while_its_bytes_move(clock: SetClock) -> None:
    """A stall ends it after the seconds of a prompt, and the whole of it after the longest time."""
    deadline = Deadline(50, 500, 5, clock)
    deadline.set_limit()
    assert deadline.left == 50
    for _ in range(12):
        clock.now += 40
        deadline.extend()
    assert deadline.left == 20
    clock.now += 30
    deadline.extend()
    assert deadline.left == -10


def test_an_image_that_is_sent_has_all_of_its_time_for_the_answer(clock: SetClock) -> None:
    """What is sent may still wait in the buffers of a slow link; a request that is answered before its end has less."""
    deadline = Deadline(50, 500, 5, clock)
    deadline.wait_for_answer()
    assert deadline.left == 50
    deadline.set_limit()
    deadline.wait_for_answer()
    assert deadline.left == 500
