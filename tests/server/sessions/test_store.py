"""The folders and files in which sessions are stored."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dls.contract import session_folders
from dls.errors import ListenError
from dls.server.sessions import expiry
from dls.server.sessions.folders import Folders, choose_folders
from dls.server.sessions.store import SessionStore
from dls.server.volume import Geometry
from tests.server.sessions.example import CLICKS, IMAGE, mask_after
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap


def test_files_are_for_their_user_only(tmp_path: Path) -> None:
    """Folders have the mode 0700 and files 0600; a new image replaces the old one's file."""
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        snap.point(*CLICKS[0])
        found = list((tmp_path / "own").rglob("*"))
        assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o700}
        assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o600}
        [image] = (tmp_path / "own" / "home" / snap.session).glob("image-*")
        snap.upload(IMAGE)
        assert not image.exists()
        names = {path.name.partition("-")[0] for path in (tmp_path / "own" / "home" / snap.session).iterdir()}
        assert names == {"session", "image", "lock"}
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[0])), mask_after(CLICKS[:1]))


def test_expired_sessions_are_removed(tmp_path: Path) -> None:
    """Sessions unused for longer than the time to live are removed if no server has them; leftovers are removed too."""
    earlier = tmp_path / "own" / "earlier"
    store = SessionStore(Folders(home := tmp_path / "own" / "home", earlier), ttl=100).open()
    names = [f"{number}" * 8 + "-0000" * 3 + "-" + "0" * 12 for number in range(4)]
    sessions = [store.create(name, "m", "e") for name in names]
    for files in sessions:
        incoming = files.receive_image()
        incoming.write(b"x")
        files.set_image(incoming, Geometry((1, 1, 1)), "")
        leftover = files.receive_image()
        leftover.write(b"never taken")
        leftover.finish()
        (earlier / files.manifest.id).mkdir(parents=True)
        (earlier / files.manifest.id / "image-of-the-release-before").touch()
    for name in names[:3]:
        for path in (home / name, *(home / name).iterdir()):
            os.utime(path, (0, time.time() - 200))
    for files in (sessions[0], sessions[1], sessions[3]):
        files.release()
    store.remove_expired((names[1],))
    assert all((home / name).exists() for name in names)
    look_later(home, 100)
    store.remove_expired((names[1],))  # the third is locked
    assert [(home / name).exists() for name in names] == [False, True, True, True]
    assert [(earlier / name).exists() for name in names] == [False, True, True, True]
    assert len(list((home / names[3]).glob("image-*"))) == 2
    found = store.find(names[3])
    assert found and len(list((home / names[3]).glob("image-*"))) == 1
    for files in (found, sessions[2]):
        files.release()


def look_later(home: Path, seconds: float) -> None:
    """Set the times at which sessions were found expired back, as if that time had passed."""
    path = home / expiry.FILE
    path.write_text(json.dumps({name: seen - seconds for name, seen in json.loads(path.read_text()).items()}))


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """A server does not store sessions in a folder that belongs to another user."""
    foreign = Path("/usr/lib")
    if os.getuid() == 0:
        foreign = tmp_path / "own" / "home"
        foreign.mkdir(parents=True)
        shutil.chown(foreign, 12345)
    with pytest.raises(ListenError, match="somebody else"):
        SessionStore(Folders(foreign)).open()


def test_a_folder_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """Another user could have created the link, so a server does not store sessions behind it."""
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(ListenError, match="somebody else"):
        SessionStore(Folders(tmp_path / "link")).open()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /dev/shm")
def test_default_folders_are_those_of_the_contract(tmp_path: Path) -> None:
    """The client looks for sessions in the folders of the contract, so a server stores them there."""
    home, earlier = session_folders(os.getuid(), "name")
    assert choose_folders(None, "name") == Folders(Path(home), Path(earlier))
    [home] = session_folders(os.getuid(), "name", str(tmp_path))
    assert choose_folders(tmp_path, "name") == Folders(Path(home))
