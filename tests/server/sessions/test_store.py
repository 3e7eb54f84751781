"""The folders and files in which sessions are stored."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dls.contract import session_folders
from dls.errors import ListenError
from dls.server.sessions.folders import Folders, choose_folders
from dls.server.sessions.store import SessionStore
from dls.server.volume import Geometry
from tests.server.sessions.example import CLICKS, IMAGE, mask_after
from tests.support.disks import small_disk
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap


def test_files_are_for_their_user_only(tmp_path: Path) -> None:
    """Folders have the mode 0700 and files 0600; the image is in the fast folder while that has space."""
    with serving(folder=tmp_path, fast=tmp_path / "own" / "fast") as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        snap.point(*CLICKS[0])
        found = list((tmp_path / "own").rglob("*"))
        assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o700}
        assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o600}
        [image] = (tmp_path / "own" / "fast" / snap.session).iterdir()
        snap.upload(IMAGE)
        assert not image.exists()
        [image] = (tmp_path / "own" / "fast" / snap.session).iterdir()
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[0])), mask_after(CLICKS[:1]))


def test_an_image_moves_to_the_next_disk(tmp_path: Path) -> None:
    """If the fast folder becomes full while an image is received, the image moves to the other folder, complete."""
    data = np.random.default_rng(0).normal(size=(40, 64, 64)).astype(np.float32).tobytes()
    with small_disk(tmp_path / "disk", "300k") as disk:
        store = SessionStore(Folders(tmp_path / "own" / "home", disk / "fast")).open()
        files = store.create("0" * 8 + "-0000" * 3 + "-" + "0" * 12, "m", "e")
        incoming = files.receive_image(0)
        for start in range(0, len(data), 50_000):
            incoming.write(data[start : start + 50_000])
        incoming.finish()
        assert incoming.path.read_bytes() == data and tmp_path / "own" in incoming.path.parents
        assert not list(disk.rglob("image*"))
        files.release()


def test_expired_sessions_are_removed(tmp_path: Path) -> None:
    """Sessions unused for longer than the time to live are removed if no server has them; leftovers are removed too."""
    fast = tmp_path / "own" / "fast"
    store = SessionStore(Folders(tmp_path / "own" / "home", fast), ttl=100).open()
    names = [f"{number}" * 8 + "-0000" * 3 + "-" + "0" * 12 for number in range(4)]
    sessions = [store.create(name, "m", "e") for name in names]
    for files in sessions:
        incoming = files.receive_image(10)
        incoming.write(b"x")
        files.set_image(incoming, Geometry((1, 1, 1)), "")
        leftover = files.receive_image(10)
        leftover.write(b"never taken")
        leftover.finish()
    for name in names[:3]:
        for path in (home := tmp_path / "own" / "home" / name, *home.iterdir()):
            os.utime(path, (0, time.time() - 200))
    for files in (sessions[0], sessions[1], sessions[3]):
        files.release()
    store.remove_expired((names[1],))  # the third is locked
    assert [(tmp_path / "own" / "home" / name).exists() for name in names] == [False, True, True, True]
    assert [(fast / name).exists() for name in names] == [False, True, True, True]
    assert len(list((fast / names[3]).iterdir())) == 2
    found = store.find(names[3])
    assert found and len(list((fast / names[3]).iterdir())) == 1
    for files in (found, sessions[2]):
        files.release()


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
    home, fast = session_folders(os.getuid(), "name")
    assert choose_folders(None, "name") == Folders(Path(home), Path(fast))
    [home] = session_folders(os.getuid(), "name", str(tmp_path))
    assert choose_folders(tmp_path, "name") == Folders(Path(home))
