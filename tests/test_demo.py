"""`dls demo`, with OpenSSH's server and with asyncssh."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dls.cli.console import Console
from dls.demo import play, sample
from dls.segment.http import Address
from dls.segment.itksnap import ItkSnapClient
from tests.conftest import kept_in
from tests.support.connecting import RecordingReporter
from tests.support.http_server import serving
from tests.support.processes import until


def list_processes(text: str) -> list[str]:
    """Return the command lines of the running processes that contain the text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # The process has ended meanwhile.
            continue
        if text in command:
            found.append(command)
    return found


def test_the_demo_ends_with_a_picture_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The command shows the times of its requests, writes the picture, and leaves no other file and no process."""
    with tempfile.TemporaryDirectory(prefix="dls-t-") as folder:  # short enough for a Unix socket
        done = subprocess.run(
            [sys.executable, "-m", "dls", "demo", "--once", "--picture", str(tmp_path / "demo.png")],
            capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL, check=False,
            env={**os.environ, "TMPDIR": folder}, cwd=tmp_path,
        )  # fmt: skip
        left = [str(path.relative_to(folder)) for path in Path(folder).rglob("*")]
        until(lambda: not list_processes(folder))
    assert done.returncode == 0, done.stderr
    assert "sshd" in done.stderr
    for request in ("upload", "point", "scribble", "lasso"):
        assert re.search(rf"{request} .*ms", done.stderr), done.stderr
    assert not left
    assert [path.name for path in tmp_path.iterdir()] == ["demo.png"]
    with Image.open(tmp_path / "demo.png") as picture:
        colors = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
        assert picture.width > 600 and picture.height > 600
    assert (np.ptp(colors, axis=1) > 60).sum() > 1000  # colored: the masks are there


def test_the_demo_with_asyncssh(tmp_path: Path, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenSSH's server the demo starts asyncssh and writes the same picture; no session stays anywhere."""
    reporter = RecordingReporter()
    monkeypatch.setattr(play, "_workspace", lambda: contextlib.nullcontext(short_folder))
    play.run(Console(file=io.StringIO()), reporter, once=True, path=tmp_path / "demo.png", library=True)
    assert any("(asyncssh)" in note for note in reporter.notes)
    assert not any(place.exists() for place in kept_in(f"{short_folder}/host"))
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.width > 600 and picture.height > 600


def test_the_sample_is_a_brain() -> None:
    """The image has three different sides, and dark ventricles beside bright white matter."""
    volume = sample.load()
    assert volume.dtype == np.float32 and len(set(volume.shape)) == 3
    assert volume[sample.VENTRICLE] < volume[sample.THALAMUS] < volume[sample.WHITE_MATTER]


@pytest.fixture(scope="module")
def results() -> list[play.Result]:
    """The results of the demo's requests at a live server."""
    with serving() as server:
        return play.play(ItkSnapClient(Address(server.port)))


@pytest.mark.parametrize(
    ("index", "smallest", "largest"), [(0, 3_000, 60_000), (1, 100_000, 700_000), (2, 2_000, 30_000)]
)
def test_the_masks_make_sense(results: list[play.Result], index: int, smallest: int, largest: int) -> None:
    """Each mask contains its voxel, and has a size (in voxels of 1 mm) that an anatomist would believe."""
    result = results[index]
    assert smallest < result.mask.sum() < largest
    assert result.mask[result.center] == 1
    assert set(np.unique(result.mask)) == {0, 1}
