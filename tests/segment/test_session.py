"""`dls.Session.segment` and `dls segment --host`, through a real SSH server."""

from __future__ import annotations

import doctest
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dls
from dls.demo import sshd
from dls.segment.itksnap import ItkSnapClient
from tests.support.command_line import run_dls
from tests.support.connecting import connected
from tests.support.image_files import CENTER, TRUTH, VOXELS, assert_same_grid, load, save, voxels_of
from tests.support.synthetic import dice

Z, Y, X = CENTER
GUIDE = Path(__file__).parents[2] / "docs" / "segment.md"


@pytest.fixture
def session(host: sshd.Server, clean: str) -> Iterator[dls.Session]:
    """A session with a secret at its port."""
    with connected(host, clean, local_secret=True)[0] as opened:
        yield opened


def test_a_volume_by_prompts(session: dls.Session) -> None:
    """Points, a scribble and a lasso give a mask of the volume's shape; each call begins with an empty mask."""
    first = session.segment(VOXELS, [dls.Point(Z, Y, X)], spacing=(2.5, 0.8, 0.9))
    assert first.shape == VOXELS.shape and first.dtype == np.uint8 and first.flags.writeable
    assert dice(first, TRUTH) > 0.85
    corner = session.segment(VOXELS, [dls.Point(1, 1, 1)], spacing=(2.5, 0.8, 0.9))
    assert corner[1, 1, 1] == 1 and corner[CENTER] == 0
    stroke = np.zeros(VOXELS.shape, bool)
    stroke[Z, Y - 4 : Y + 4, X] = True
    prompts: list[Any] = [dls.Scribble(stroke), dls.Lasso(TRUTH & (np.arange(len(TRUTH)) == Z)[:, None, None])]
    assert dice(session.segment(VOXELS, [*prompts, dls.Point(1, 1, 1, False)]), TRUTH) > 0.85
    np.testing.assert_array_equal(session.segment(VOXELS, [dls.Point(Z, Y, X)], spacing=(2.5, 0.8, 0.9)), first)


def list_stored(host: sshd.Server, remote_dir: str) -> set[str]:
    """Return the ids of the sessions that are stored on the host."""
    done = run_dls("sessions", "-F", str(host.config), "--remote-dir", remote_dir, "--json", "dls-demo")
    assert done.returncode == 0, done.stderr
    return {str(event["id"]) for event in map(json.loads, done.stdout.splitlines()) if event["event"] == "session"}


def requests(session: dls.Session) -> list[str]:
    """Return the names of the requests of the current session at the server."""
    client = session._segmenter and session._segmenter._client
    assert isinstance(client, ItkSnapClient)
    return [name for name, _, _ in client.times]


@pytest.mark.slow
def test_an_image_is_sent_once(host: sshd.Server, clean: str) -> None:
    """Calls with the same voxels send them once, also in another array; others are sent, and a changed array is."""
    session, _ = connected(host, clean)
    volume = np.random.default_rng(0).normal(size=(40, 160, 160)).astype(np.float32)
    with session:
        assert session.segment(volume, [dls.Point(1, 2, 3)])[1, 2, 3] == 1
        session.segment(volume.copy(), [dls.Point(4, 5, 6), dls.Point(7, 8, 9, False)])
        assert requests(session) == ["models", "start session", "upload", "point", "reset", "point", "point"]
        volume[0, 0, 0] += 1
        session.segment(volume, [dls.Point(1, 2, 3)])
        assert requests(session) == ["models", "start session", "upload", "point"]


@pytest.mark.slow
def test_a_session_that_the_server_removed(session: dls.Session) -> None:
    """Where the server has forgotten the session, the image is sent once more."""
    before = session.segment(VOXELS, [dls.Point(Z, Y, X)])
    client = session._segmenter._client  # type: ignore[union-attr]
    assert client is not None
    client.end()
    np.testing.assert_array_equal(session.segment(VOXELS, [dls.Point(Z, Y, X)]), before)


@pytest.mark.slow
def test_closing_removes_the_image_from_the_host(host: sshd.Server, clean: str) -> None:
    """After the session nothing of the volume is stored there."""
    before = list_stored(host, clean)
    session, _ = connected(host, clean)
    with session:
        session.segment(VOXELS, [dls.Point(Z, Y, X)])
        assert len(list_stored(host, clean)) == len(before) + 1
    assert list_stored(host, clean) == before


@pytest.mark.slow
def test_what_does_not_fit(session: dls.Session) -> None:
    """It is refused before anything is sent, and a box by the region engine with what to do."""
    wrong: list[tuple[Any, list[Any], str]] = [
        (VOXELS[0], [dls.Point(0, 0, 0)], "of the shape"),
        (VOXELS.astype(complex), [dls.Point(0, 0, 0)], "array of numbers"),
        (VOXELS, [dls.Point(24, 0, 0)], "outside the volume"),
        (VOXELS, [], "no prompt"),
        (VOXELS, [dls.Box((9, 9, 9), (9, 20, 20))], "takes no boxes"),
    ]
    for volume, prompts, sentence in wrong:
        with pytest.raises(dls.SegmentError, match=sentence):
            session.segment(volume, prompts)


def test_the_example_of_the_guide(session: dls.Session) -> None:
    """The Python of docs/segment.md runs as it stands there, with the session in place of its host."""
    [code] = [part.split("```")[0] for part in GUIDE.read_text(encoding="utf-8").split("```pycon\n")[1:]]
    examples = doctest.DocTestParser().get_doctest(code, {"session": session, "dls": dls}, "guide", None, None)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert examples.examples and runner.run(examples).failed == 0


def test_the_command_on_a_host(host: sshd.Server, clean: str, tmp_path: Path) -> None:
    """`dls segment --host` logs in, segments there, writes the mask here, and leaves no image on the host."""
    save(tmp_path / "a.nii.gz")
    before = list_stored(host, clean)
    login = ("-F", str(host.config), "--remote-dir", clean)
    words = ("--point", f"{X},{Y},{Z}", "-o", str(tmp_path / "m.nii.gz"), "--json", "--host", "dls-demo")
    done = run_dls("segment", str(tmp_path / "a.nii.gz"), *words, *login)
    assert done.returncode == 0, done.stderr
    assert dice(voxels_of(tmp_path / "m.nii.gz"), TRUTH) > 0.85
    assert_same_grid(load(tmp_path / "m.nii.gz"), load(tmp_path / "a.nii.gz"), 1e-5)
    names = [json.loads(line).get("phase") for line in done.stdout.splitlines()]
    assert names[-2:] == ["segment", None] and "login" in names
    assert "Port 8911" not in done.stderr
    assert list_stored(host, clean) == before
    assert "a.nii.gz" not in run_dls("logs", *login, "dls-demo").stdout


def test_the_command_obeys_the_profile_of_the_host(
    host: sshd.Server, clean: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept for the host need not be typed again, and the licence can be agreed to without a terminal."""
    monkeypatch.setenv("DLS_USER_DIR", str(tmp_path))
    (tmp_path / "hosts.toml").write_text(f'[dls-demo]\nssh-config = "{host.config}"\nremote-dir = "{clean}"\n')
    save(tmp_path / "a.nii.gz")
    words = (str(tmp_path / "a.nii.gz"), "--point", f"{X},{Y},{Z}", "-o", str(tmp_path / "m.nii.gz"), "--host")
    done = run_dls("segment", *words, "dls-demo")
    assert done.returncode == 0, done.stderr
    licensed = ("--force", "--engine", "nninteractive", "--accept-licence")
    done = run_dls("segment", *words, "no-such-host.invalid", *licensed)
    assert done.returncode == 11 and "creativecommons" in done.stderr, done.stderr
