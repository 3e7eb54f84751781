"""Every method of the official client through `dls connect`, before and after the host's processes are killed.

The masks are those of the library called directly in this process, voxel for voxel.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.support import official
from tests.support.nninteractive import IGNORED_WARNINGS
from tests.support.official import Direct, Operation
from tests.support.synthetic import ellipsoid, noisy
from tests.viewers.conftest import Viewed

pytestmark = [*IGNORED_WARNINGS, pytest.mark.slow, pytest.mark.timeout(1200)]

SHAPE = (48, 56, 64)
TRUTH = ellipsoid(SHAPE, (24, 28, 32), (11, 12, 14))
IMAGE = noisy(TRUTH, 5, np.random.default_rng(0))
OTHER_IMAGE = noisy(ellipsoid(SHAPE, (20, 30, 30), (9, 14, 12)), 6, np.random.default_rng(1))
SECTION = (TRUTH & (np.arange(48) == 24)[:, None, None]).astype(np.uint8)
LINE = np.zeros(SHAPE, np.uint8)
LINE[24, 28, 26:38] = 1
BOX = [[22, 23], [20, 36], [22, 42]]
METHODS: dict[str, Operation] = {
    "set_image": official.set_image(IMAGE),
    "set_target_buffer": official.set_buffer(SHAPE),
    "point": official.point(24, 28, 32),
    "point that excludes": official.point(24, 28, 50, include=False),
    "point between voxels": official.point(24.4, 28.6, 31.5),
    "bbox 2-D": official.bbox(BOX),
    "bbox 2-D in another plane": official.bbox([[16, 32], [28, 29], [22, 42]]),
    "undo": official.undo,
    "undo again, which does nothing": official.undo,
    "scribble": official.scribble(LINE),
    "scribble with a box": official.scribble(np.ones((1, 2, 9), np.uint8), [[25, 26], [27, 29], [28, 37]]),
    "scribble of bool": official.scribble(LINE.astype(bool)),
    "lasso": official.lasso(SECTION),
    "lasso with a box": official.lasso(SECTION[24:25, 14:42, 16:48].copy(), [[24, 25], [14, 42], [16, 48]]),
    "empty scribble": official.scribble(np.zeros(SHAPE, np.uint8)),
    "autozoom off": official.autozoom(False),
    "point without autozoom": official.point(26, 28, 32),
    "autozoom on": official.autozoom(True),
    "point that waits": official.point(20, 26, 30, run=False),
    "bbox that waits": official.bbox(BOX, run=False),
    "predict": official.predict,
    "predict, with nothing that waits": official.predict,
    "initial_seg": official.initial_seg(TRUTH.astype(np.uint8)),
    "point after initial_seg": official.point(24, 28, 44),
    "undo after initial_seg": official.undo,
    "initial_seg that predicts": official.initial_seg(TRUTH.astype(np.int16), run=True),
    "reset": official.reset,
    "point after reset": official.point(24, 28, 32),
    "set_image again": official.set_image(OTHER_IMAGE),
    "set_target_buffer again": official.set_buffer(SHAPE, np.int16),
    "point in the other image": official.point(20, 30, 30),
    "lasso in the other image": official.lasso(SECTION),
}
"""One session's work, in this order."""


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray | None]:
    """The mask after each method, of the library called directly."""
    direct = Direct()
    return {name: direct.apply(operation) for name, operation in METHODS.items()}


LEASES = 6
"""Leases that suffer each kill together, each of them before another method."""


def assert_mask(session: Any, name: str, expected: dict[str, np.ndarray | None]) -> None:
    """Call the method of that name, and compare the mask."""
    METHODS[name](session)
    mask = expected[name]
    if mask is not None:
        np.testing.assert_array_equal(session.target_buffer, mask, name)


@pytest.mark.parametrize("fault", [Viewed.kill_server, Viewed.kill_engine])
def test_every_method_after_a_kill(
    viewed: Viewed, expected: dict[str, np.ndarray | None], fault: Callable[[Viewed], None]
) -> None:
    """Each method that comes next after a kill does what it does in a session without one.

    Six leases are each a method further than the one before, and do six methods between two kills.
    """
    names = list(METHODS)
    with contextlib.ExitStack() as stack:
        leases = [iter(names) for _ in range(LEASES)]
        sessions = []
        for ahead, lease in enumerate(leases):
            sessions.append(stack.enter_context(official.connect_official(viewed.port)))
            for name in itertools.islice(lease, ahead):
                assert_mask(sessions[-1], name, expected)
        for _ in range(0, len(names), LEASES):
            fault(viewed)
            for session, lease in zip(sessions, leases, strict=True):
                for name in itertools.islice(lease, LEASES):
                    assert_mask(session, name, expected)


@pytest.mark.parametrize("fault", [None, Viewed.cut_link], ids=["no fault", "connection of SSH killed"])
def test_every_method_after_a_cut(
    viewed: Viewed, expected: dict[str, np.ndarray | None], fault: Callable[[Viewed], None] | None
) -> None:
    """Each method does what it does in the library called directly, also when the link has just been cut."""
    with official.connect_official(viewed.port) as session:
        for name in METHODS:
            if fault is not None:
                fault(viewed)
            assert_mask(session, name, expected)
        assert session.supported_interactions and session.ping()
        assert session.heartbeat() > 0 and session.lease_status()["remaining_seconds"] > 0


RARE_FAULTS: dict[str, Callable[[Viewed], None]] = {
    "dls stop": Viewed.stop_server,
    "dls connect killed": Viewed.kill_connect,
}


@pytest.mark.parametrize("fault", RARE_FAULTS)
def test_a_lease_goes_on(viewed: Viewed, fault: str) -> None:
    """After `dls stop`, and with another `dls connect` on the same port, the lease and its image are still there."""
    session = official.connect_official(viewed.port)
    assert_the_same(session, Direct(), work(lambda: RARE_FAULTS[fault](viewed)))
    session.close()


def test_a_lease_outlives_an_idle_end(impatient: Viewed) -> None:
    """The server ends when nobody asks for anything, and the next method brings it and the lease back."""
    session = official.connect_official(impatient.port)
    assert_the_same(session, Direct(), work(impatient.wait_for_idle_end))
    session.close()


def work(cause: Callable[[], None]) -> Iterator[Operation]:
    """Yield calls, and cause a fault before some of them."""
    yield from official.begin(IMAGE)
    cause()
    yield official.point(24, 28, 32)
    cause()
    yield official.lasso(SECTION)
    yield official.point(24, 28, 50, include=False)
    cause()
    yield official.undo


def assert_the_same(session: Any, direct: Direct, operations: Iterator[Operation]) -> None:
    """Make each call twice, with the client and in the library directly, and compare the masks."""
    for operation in operations:
        operation(session)
        mask = direct.apply(operation)
        if mask is not None:
            np.testing.assert_array_equal(session.target_buffer, mask)
