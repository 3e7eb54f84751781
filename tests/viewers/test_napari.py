"""napari-nninteractive's own widget through `dls connect`, without a display; `scripts/viewers` installs napari."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import official
from tests.support.nninteractive import IGNORED_WARNINGS
from tests.support.official import Direct
from tests.support.source import ROOT
from tests.support.synthetic import ellipsoid, noisy
from tests.viewers.conftest import Viewed

PYTHON = Path(os.environ.get("DLS_NAPARI_PYTHON", ROOT / ".viewers" / "bin" / "python"))
pytestmark = [
    *IGNORED_WARNINGS,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not PYTHON.exists(), reason="napari is not installed: scripts/viewers installs it"),
]

SHAPE = (48, 56, 64)
TRUTH = ellipsoid(SHAPE, (24, 28, 32), (11, 12, 14))
IMAGE = noisy(TRUTH, 5, np.random.default_rng(0))
ORDERS: tuple[tuple[Any, ...], ...] = (
    ("point", 24, 28, 32),
    ("include", False),
    ("point", 24, 28, 52),
    ("include", True),
    ("bbox", 22, [20, 36], [22, 42]),
    ("undo",),
    ("lasso", 24, [16, 40], [18, 46]),
    ("scribble", 26, 28, [24, 40]),
    ("autozoom", False),
    ("point", 20, 28, 32),
    ("autozoom", True),
    ("auto_run", False),
    ("point", 28, 28, 32),
    ("run",),
    ("auto_run", True),
    ("reset",),
    ("point", 24, 28, 30),
    ("next_object",),
    ("point", 24, 26, 32),
)
"""What the annotator does in napari's window."""
BETWEEN_FAULTS = 3
"""Number of things that are done between two faults."""


class Napari:
    """A napari without a display, in a process of its own environment."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._mask = folder / "mask.npy"
        self._image = folder / "image.npy"
        words = [PYTHON, Path(__file__).with_name("napari_driver.py"), folder, self._mask]
        self.process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "log").open("w"), text=True,
        )  # fmt: skip

    def do(self, *order: Any) -> dict[str, Any]:
        """Do one thing in the window; returns what is shown then."""
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def begin(self, port: int, image: np.ndarray = IMAGE, key: str = "") -> dict[str, Any]:
        """Choose the image and press Initialize."""
        np.save(self._image, image)
        return self.do("begin", f"http://localhost:{port}", key, str(self._image))

    @property
    def mask(self) -> np.ndarray:
        """What the label layer shows."""
        shown: np.ndarray = np.load(self._mask)
        return shown


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Napari]]:
    """Start a napari; it is closed at the end."""
    with contextlib.ExitStack() as stack:
        started: list[Napari] = []

        def begin() -> Napari:
            started.append(Napari(tmp_path / f"napari-{len(started)}"))
            stack.enter_context(started[-1].process)
            return started[-1]

        yield begin
        for napari in started:
            napari.do("quit")
            assert napari.process.stdin is not None
            napari.process.stdin.close()


def annotate(napari: Napari, cause: Callable[[], object] = lambda: None) -> list[np.ndarray]:
    """Do everything of ORDERS, and cause a fault in between; returns the masks, and fails if the session was lost."""
    masks = []
    for number, order in enumerate(ORDERS):
        if number % BETWEEN_FAULTS == 0:
            cause()
        state = napari.do(*order)
        assert state["ready"] and not state["shown"] and not state["raised"], (order, state)
        masks.append(napari.mask)
    return masks


def test_the_masks_are_the_librarys(viewed: Viewed, start: Callable[[], Napari]) -> None:
    """Points and boxes that are made in napari's window show what the library called directly gives."""
    napari = start()
    assert napari.begin(viewed.port)["ready"]
    direct = Direct(official.begin(IMAGE))
    napari.do("point", 24, 28, 32)
    np.testing.assert_array_equal(napari.mask, direct.apply(official.point(24, 28, 32)))
    napari.do("bbox", 22, [20, 36], [22, 42])
    box = [[22.0, 23.0], [20.0, 36.0], [22.0, 42.0]]
    np.testing.assert_array_equal(napari.mask, direct.apply(official.bbox(box)))


FAULTS = {
    "server killed": Viewed.kill_server,
    "engine killed": Viewed.kill_engine,
    "connection of SSH killed": Viewed.cut_link,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_shown_of_a_fault(viewed: Viewed, start: Callable[[], Napari], fault: str) -> None:
    """With faults between what is done, napari shows no warning, keeps its lease, and has the same masks."""
    unharmed, harmed = start(), start()
    assert unharmed.begin(viewed.port)["ready"] and harmed.begin(viewed.port)["ready"]
    expected = annotate(unharmed)
    assert expected[0].any()
    for order, mask, right in zip(ORDERS, annotate(harmed, lambda: FAULTS[fault](viewed)), expected, strict=True):
        np.testing.assert_array_equal(mask, right, str(order))


def test_an_image_sent_after_a_fault(viewed: Viewed, start: Callable[[], Napari]) -> None:
    """Connect, Initialize and the first point work, each just after the server was killed."""
    napari = start()
    viewed.kill_server()
    assert napari.begin(viewed.port)["ready"]
    viewed.kill_server()
    napari.do("point", 24, 28, 32)
    direct = Direct(official.begin(IMAGE))
    np.testing.assert_array_equal(napari.mask, direct.apply(official.point(24, 28, 32)))


def test_a_key_that_nobody_asked_for(viewed: Viewed, start: Callable[[], Napari]) -> None:
    """A key in napari's field for it, where the local port needs none, is no obstacle."""
    napari = start()
    assert napari.begin(viewed.port, key="left-from-another-server")["ready"]


def test_a_dls_connect_that_is_not_there(viewed: Viewed, start: Callable[[], Napari]) -> None:
    """Without `dls connect` napari says that the session is lost; with it, Initialize goes on with the mask so far."""
    napari = start()
    lease = napari.begin(viewed.port)["lease"]
    assert lease
    napari.do("point", 24, 28, 32)
    before = napari.mask
    assert before.any()
    port = viewed.port
    viewed.connect.close()
    state = napari.do("point", 24, 28, 40)
    assert not state["ready"] and state["status"] == "session lost" and state["shown"]
    viewed.start_again(port)
    state = napari.do("initialize")
    assert state["ready"] and state["lease"] != lease
    np.testing.assert_array_equal(napari.mask, before)
    direct = Direct([*official.begin(IMAGE), official.initial_seg(before.astype(np.uint8))])
    napari.do("point", 24, 28, 40)
    np.testing.assert_array_equal(napari.mask, direct.apply(official.point(24, 28, 40)))
