"""Images of official clients: the real client through the proxy, over channels that the test slows down and cuts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dls.server.engines.nninteractive import NnInteractiveEngine
from dls.server.sessions.copies import COPIES_FOLDER
from tests.support.http_server import serving
from tests.support.nninteractive import IGNORED_WARNINGS
from tests.support.official_client import OPTIONS, Session, library, open_client
from tests.support.processes import until
from tests.support.proxied_server import ProxiedServer, proxied
from tests.support.synthetic import ellipsoid, noisy

pytestmark = [*IGNORED_WARNINGS, pytest.mark.slow, pytest.mark.timeout(300)]

SHAPE, CENTER = (64, 128, 160), (32, 64, 80)
IMAGE = noisy(ellipsoid(SHAPE, CENTER, (12, 14, 14)), 6, np.random.default_rng(0))
SLOW = 1e6
"""Bytes a second with which the rest of the image takes so long that the host is asked."""


@pytest.fixture
def home(short_folder: Path) -> Path:
    return short_folder / "own" / "home"


@pytest.fixture
def proxy(short_folder: Path) -> Iterator[ProxiedServer]:
    with (
        serving(NnInteractiveEngine(OPTIONS), folder=short_folder, socket=str(short_folder / "s")) as live,
        proxied(live.socket, official_timeout=60) as running,
    ):
        yield running


def point(client: Session) -> np.ndarray:
    client.add_point_interaction(CENTER, True)
    return np.array(client.target_buffer)


def images_sent(proxy: ProxiedServer) -> list[int]:
    return [each.sent_bytes for each in proxy.endpoint.channels if each.sent.startswith(b"POST /set_image")]


def copies(home: Path) -> list[Path]:
    folder = home / COPIES_FOLDER
    return list(folder.iterdir()) if folder.is_dir() else []


def test_an_image_that_the_host_has_is_not_sent(proxy: ProxiedServer, home: Path) -> None:
    """A second session gets the same image and mask; the copy goes with the last session."""
    with library(IMAGE) as direct, contextlib.closing(open_client(proxy.port, IMAGE)) as first:
        [whole] = images_sent(proxy)
        until(lambda: copies(home))
        proxy.endpoint.channels.clear()
        proxy.endpoint.rate = SLOW
        with contextlib.closing(open_client(proxy.port, IMAGE)) as second:
            given_up, instead = images_sent(proxy)
            assert given_up < whole / 2 and instead < 2000
            expected = point(direct)
            assert expected.any()
            np.testing.assert_array_equal(point(second), expected)
            np.testing.assert_array_equal(point(first), expected)
            assert copies(home)[0].stat().st_nlink == 3
    until(lambda: not copies(home))


def test_an_image_that_was_cut_goes_on(proxy: ProxiedServer) -> None:
    """Each byte crosses once, and the mask is the same."""
    proxy.endpoint.cut_sending = [None, None, 2_000_000]  # after claim and capabilities
    with library(IMAGE) as direct, contextlib.closing(open_client(proxy.port, IMAGE)) as client:
        cut, rest = images_sent(proxy)
        assert cut == 2_000_000 and [each.state for each in proxy.uploads].count("resumed") == 1
        assert cut + rest < proxy.uploads[-1].total + 5000
        np.testing.assert_array_equal(point(client), point(direct))


def test_a_damaged_copy_is_no_image(proxy: ProxiedServer, home: Path) -> None:
    """An array has no checksum of its own, so the copy's digest is computed again before it is taken."""
    with library(IMAGE) as direct, contextlib.closing(open_client(proxy.port, IMAGE)):
        until(lambda: copies(home))
        with copies(home)[0].open("r+b") as file:
            file.seek(1_000_000)
            file.write(b"damaged")
        proxy.endpoint.channels.clear()
        proxy.endpoint.rate = SLOW
        with contextlib.closing(open_client(proxy.port, IMAGE)) as second:
            assert len(images_sent(proxy)) == 3
            np.testing.assert_array_equal(point(second), point(direct))
