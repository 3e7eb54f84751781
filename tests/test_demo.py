"""`dls demo`, with OpenSSH's server and with the library's."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dls.demo import play, sample
from dls.remote.progress import Silent
from tests.conftest import KEPT


def test_the_demo_ends_with_a_picture_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """From the command line, in a folder for temporary files of its own."""
    kept = {path for place in KEPT if place.is_dir() for path in place.iterdir()}
    done = subprocess.run(
        [sys.executable, "-m", "dls", "demo", "--once", "--picture", str(tmp_path / "demo.png")],
        capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL, check=False,
        env={**os.environ, "TMPDIR": "/tmp"}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sshd" in done.stderr
    for request in ("upload", "point", "scribble", "lasso"):
        assert re.search(rf"{request} .*ms", done.stderr), done.stderr
    folder = re.search(r"/tmp/dls-demo-\w+", done.stderr)
    assert not list(Path("/tmp").glob("dls-demo-*")) or folder is None
    assert {path for place in KEPT if place.is_dir() for path in place.iterdir()} <= kept
    with Image.open(tmp_path / "demo.png") as picture:
        colors = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
        assert picture.width > 600 and picture.height > 600
    assert (np.ptp(colors, axis=1) > 60).sum() > 1000  # colored: the masks are there


def test_the_demo_with_a_server_from_the_library(tmp_path: Path) -> None:
    """Where there is no OpenSSH server."""
    screen = Console(file=io.StringIO())
    play.run(screen, Silent(), once=True, picture=tmp_path / "demo.png", library=True)
    assert (tmp_path / "demo.png").exists()


def test_the_sample_is_a_brain() -> None:
    """Three different sides, and dark ventricles beside bright white matter."""
    volume = sample.load()
    assert volume.dtype == np.float32 and len(set(volume.shape)) == 3
    assert volume[sample.VENTRICLE] < volume[sample.THALAMUS] < volume[sample.WHITE_MATTER]


@pytest.mark.parametrize("results", [1])
def test_the_masks_make_sense(results: int) -> None:
    """Each holds its voxel, and has a size an anatomist would believe."""
    from dls.demo.client import ItkSnapClient
    from tests.support.http_server import serving

    with serving() as server:
        ventricle, white, thalamus = play.play(ItkSnapClient(server.port))
    assert 3_000 < ventricle.mask.sum() < 60_000
    assert 100_000 < white.mask.sum() < 700_000
    assert 2_000 < thalamus.mask.sum() < 30_000
    for result in (ventricle, white, thalamus):
        assert result.mask[result.center] == 1
