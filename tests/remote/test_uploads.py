"""Images through `dls connect` over a real OpenSSH server and a thin link, whose bytes are counted.

Each test ends at a mask through the local port, compared voxel for voxel.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import dls
from dls.demo import sshd
from dls.remote.progress import UploadProgress
from dls.server.engines.region import RegionEngine
from dls.server.sessions.copies import COPIES_FOLDER
from dls.server.volume import Geometry, Prompt, Volume
from tests.conftest import kept_in
from tests.support.connecting import RecordingReporter
from tests.support.itksnap import ItkSnap, described, packed
from tests.support.processes import free_port, is_gone, until
from tests.support.slow_link import slow_link

pytestmark = pytest.mark.slow

IMAGES = [np.random.default_rng(seed).normal(size=(110, 160, 160)).astype(np.float32) for seed in range(3)]
"""One for each test, because the host goes on having those of the tests before."""
RATE = 2e6
"""Bytes a second of the link."""


class UploadReporter(RecordingReporter):
    """Remembers what is told of uploads."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[UploadProgress] = []

    def upload(self, progress: UploadProgress) -> None:
        self.uploads.append(progress)


class Way:
    """A session over a thin link."""

    def __init__(self, session: dls.Session, reporter: UploadReporter, count: Path, home: Path) -> None:
        self.session = session
        self.reporter = reporter
        self._count = count
        self.home = home
        """The folder with the server's sessions."""

        self._others = set(self._all_copies())
        self.image = IMAGES.pop()
        self.image[50:60, 70:90, 70:90] += 20
        self.file = packed(self.image)

    @property
    def crossed(self) -> int:
        """Bytes that have gone to the host."""
        return int(self._count.read_text())

    def begin(self) -> ItkSnap:
        snap = ItkSnap(self.session.port)
        snap.start()
        return snap

    def upload(self, snap: ItkSnap) -> None:
        snap.shape = self.image.shape
        answer = snap.post(f"/upload_raw/{snap.session}?filename=upload.nii.gz", self.file, described(snap.shape))
        assert answer.status == 200, answer.body

    @contextlib.contextmanager
    def uploading(self, snap: ItkSnap) -> Iterator[None]:
        """Upload in the background, and wait for the end of it at the end of the context."""
        thread, before = threading.Thread(target=self.upload, args=(snap,)), self.crossed
        thread.start()
        until(lambda: self.crossed - before > len(self.file) / 2)
        yield
        thread.join()

    def copies(self) -> list[Path]:
        """Return the copies that came during this test; sessions of other tests on this host may have some too."""
        return [path for path in self._all_copies() if path not in self._others]

    def _all_copies(self) -> list[Path]:
        folder = self.home / COPIES_FOLDER
        return list(folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def way(host: sshd.Server, clean: str, tmp_path: Path) -> Iterator[Way]:
    with slow_link("127.0.0.1", host.port, 0.02, RATE, tmp_path / "count") as port:
        config = tmp_path / "config"
        alias = f"Port {port}\n  HostKeyAlias [127.0.0.1]:{host.port}\n"
        config.write_text(host.config.read_text().replace(f"Port {host.port}\n", alias))
        reporter = UploadReporter()
        login = dls.LoginOptions(ssh_config=config, remote_dir=clean)
        with dls.connect("dls-demo", login=login, local_port=free_port(), reporter=reporter) as session:
            yield Way(session, reporter, tmp_path / "count", kept_in(clean)[0])


def check(way: Way, snap: ItkSnap) -> None:
    """Click, and compare the mask with that of the engine itself."""
    direct = RegionEngine().open(Volume(way.image.copy(), Geometry(way.image.shape)))
    direct.add(Prompt.point(55, 80, 80, foreground=True))
    assert direct.mask.any()
    np.testing.assert_array_equal(snap.mask(snap.point(55, 80, 80)), direct.mask)


def test_the_second_session_sends_no_image(way: Way) -> None:
    """The image crosses the link once; the progress of the upload is told, and the copy goes with the sessions."""
    before = way.crossed
    first = way.begin()
    way.upload(first)
    assert len(way.file) < way.crossed - before < 1.1 * len(way.file) + 100_000
    assert any(each.state == "sending" and each.rate > 0 and each.left for each in way.reporter.uploads)
    until(way.copies)
    second = way.begin()
    before = way.crossed
    way.upload(second)
    assert way.crossed - before < len(way.file) / 2
    until(lambda: way.reporter.uploads[-1].is_over)
    assert way.reporter.uploads[-1].saved == way.reporter.uploads[-1].total
    check(way, second)
    check(way, first)
    for snap in (first, second):
        assert way.copies()
        snap.get(f"/end_session/{snap.session}")
    assert way.copies() == []


def kill_server(way: Way) -> None:
    pid = way.session.state.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: is_gone(pid))


def cut_link(way: Way) -> None:
    way.session.connection.transport.close()


@pytest.mark.parametrize("harm", [cut_link, kill_server])
def test_an_upload_that_was_cut_goes_on(way: Way, harm: Callable[[Way], None]) -> None:
    """Where the link is cut or the server killed in the middle, what the host has is not sent again."""
    snap = way.begin()
    before = way.crossed
    with way.uploading(snap):
        harm(way)
    [resumed] = [each for each in way.reporter.uploads if each.state == "resumed"]
    assert resumed.saved > len(way.file) / 8
    # Beside the image: what was on its way at the cut, and the new login with its look at the host.
    assert way.crossed - before < 2 * len(way.file) - resumed.saved + 300_000
    check(way, snap)
    assert [path.name.partition("-")[0] for path in way.home.glob("*/*.gz")].count("part") == 0
