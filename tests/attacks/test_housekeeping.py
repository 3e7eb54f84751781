"""Rows 12, 13 and 18 for sessions: maintenance, folders of strangers, clocks, loading, memory and full disks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from dls.contract import second_session_folder, session_folders
from dls.remote.host import stored_sessions
from dls.remote.host.probe import HostReport
from dls.server.engines.readiness import Readiness
from dls.server.executors import Executors
from dls.server.sessions import expiry
from dls.server.sessions.folders import Folders
from dls.server.sessions.registry import SessionRegistry
from dls.server.sessions.store import SessionStore
from dls.server.volume import Box, Mask, Prompt, Volume
from tests.support.disks import small_disk
from tests.support.engines import Painter, PainterSegmentation
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap

SESSION = "0" * 8 + "-0000" * 3 + "-" + "0" * 12
EIGHT_DAYS = 8 * 86400


def age(home: Path, seconds: float) -> None:
    """Set the times of all sessions' files back."""
    for folder in [path for path in home.iterdir() if path.is_dir()]:
        for path in (folder, *folder.iterdir()):
            os.utime(path, (0, path.stat().st_mtime - seconds))


def test_maintenance_goes_on_after_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Row 12: without the sessions' folder one round fails and is logged; when it is back, the next one works."""

    async def scenario() -> None:
        engine, executors = Painter(), Executors(1)
        home = tmp_path / "own" / "home"
        store = SessionStore(Folders(home), ttl=0).open()
        registry = SessionRegistry(engine, executors, Readiness(), store, 1 << 20, engine.models)
        shutil.rmtree(home)
        task = asyncio.create_task(registry.run_maintenance(0.01))
        while "maintenance failed" not in caplog.text:
            await asyncio.sleep(0.01)
            assert not task.done()
        store.create(SESSION, "m", "e").release()
        while (home / SESSION).exists():
            await asyncio.sleep(0.01)
            assert not task.done()
        task.cancel()
        executors.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))


STRANGER = """
import fcntl, os, sys
from pathlib import Path
from dls.server.sessions.folders import choose_folders
from dls.server.sessions.store import SessionStore
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
folders = choose_folders(None, "name")
SessionStore(folders).open().create(sys.argv[2], "m", "e").release()
print(folders.home)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs the right to be another user")
def test_a_folder_of_a_stranger_stops_no_server(short_folder: Path) -> None:
    """Row 13: where somebody else made /var/tmp/dls-UID, sessions are stored at home, and the client lists them."""
    uid = 60000 + os.getpid() % 5000
    taken = [Path(folder).parent for folder in session_folders(uid, "name")]
    home = short_folder / "home"
    home.mkdir(mode=0o700)
    short_folder.chmod(0o755)
    shutil.chown(home, uid, uid)
    with contextlib.ExitStack() as stack:
        for folder in taken:
            folder.mkdir()
            stack.callback(shutil.rmtree, folder)
            shutil.chown(folder, 12345)
        environment = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", STRANGER, str(uid), SESSION]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == second_session_folder(str(home), "name")
        assert not any(list(folder.iterdir()) for folder in taken)
    report = HostReport("Linux", "x86_64", "", "", str(home), uid, "", "", "name", "", 0)
    found = ""
    for folders in stored_sessions.list_folders(report, None):
        script = stored_sessions.list_script(folders)
        found += subprocess.run(
            ["sh", "-s"], input=script, capture_output=True, text=True, check=True, user=uid, group=uid
        ).stdout
    assert [session.id for session in stored_sessions.read_list(found)] == [SESSION]


def test_a_clock_that_is_ahead_removes_no_session(tmp_path: Path) -> None:
    """Row 18: a session is removed when two looks, a day apart, find it expired, and no earlier."""
    home = tmp_path / "own" / "home"
    store = SessionStore(Folders(home)).open()
    store.create(SESSION, "m", "e").release()
    age(home, EIGHT_DAYS)  # as a clock that is a week ahead sees it
    SessionStore(Folders(home)).open()
    assert (home / SESSION).exists()
    age(home, -EIGHT_DAYS)
    SessionStore(Folders(home)).open()
    assert json.loads((home / expiry.FILE).read_text()) == {}
    age(home, EIGHT_DAYS)
    (home / expiry.FILE).write_text(json.dumps({SESSION: time.time() + EIGHT_DAYS}))  # by a clock that was ahead
    for days, is_there in ((0, True), (0.5, True), (1.1, False)):
        if days:
            (home / expiry.FILE).write_text(json.dumps({SESSION: time.time() - days * 86400}))
        SessionStore(Folders(home)).open()
        assert (home / SESSION).exists() == is_there


def test_an_engine_that_dies_while_it_loads(tmp_path: Path) -> None:
    """Row 18: the server ends with a sentence, a hint and the exit code of an engine that can't be loaded."""
    command = [sys.executable, "-m", "dls", "serve", "--port", "0", "--engine", "tests.support.engines:DiesAtLoad"]
    done = subprocess.run([*command, "--session-dir", str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 21, done.stderr
    assert "The engine's process was killed" in done.stderr and "Hint:" in done.stderr


class Forgetful(Painter):
    """Has no memory for the mask of the next prompt when `fails` is set."""

    fails = False

    def open(self, volume: Volume, mask: Mask | None = None) -> ForgetfulSegmentation:
        return ForgetfulSegmentation(self, super().open(volume, mask).mask)


class ForgetfulSegmentation(PainterSegmentation):
    """Raises MemoryError where the mask is read after a prompt was added."""

    def __init__(self, engine: Forgetful, mask: Mask) -> None:
        self._forgetful = engine
        super().__init__(engine, mask)

    def add(self, prompt: Prompt) -> Box | None:
        box = super().add(prompt)
        if self._forgetful.fails:
            self._forgetful.fails = False
            del self.mask
        return box

    def __getattr__(self, name: str) -> Mask:
        raise MemoryError


def test_no_memory_for_an_answer(tmp_path: Path) -> None:
    """Row 18: a prompt for whose answer there is no memory is refused, and the next mask does not contain it."""
    engine = Forgetful()
    dots = np.eye(3, 24, dtype=bool)
    with serving(engine, folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start("painter")
        snap.upload(np.zeros((1, 3, 24), np.float32))
        assert snap.point(0, 0, 0).status == 200
        engine.fails = True
        answer = snap.point(0, 1, 1)
        assert answer.status == 503 and "nothing was changed" in answer.error
        np.testing.assert_array_equal(snap.mask(snap.point(0, 2, 2))[0], dots & [[True], [False], [True]])


def test_a_disk_that_fills_and_empties_loses_nothing(tmp_path: Path) -> None:
    """Row 18: while the disk of the sessions fills up and empties, each click is applied and stored, or neither."""
    shape = (8, 64, 64)
    rng = np.random.default_rng(0)
    expected = np.zeros(shape, bool)
    statuses = set()
    with small_disk(tmp_path / "disk", "600k") as disk:
        with serving(Painter(), folder=disk) as server:
            snap = ItkSnap(server.port)
            snap.start("painter")
            assert snap.upload(np.zeros(shape, np.float32)).status == 200
            for turn in range(80):
                ballast = disk / f"ballast-{turn // 20}"
                if turn % 20 < 10:
                    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
                        while file.write(rng.bytes((8, 4096, 40960)[turn % 3])) and turn % 20 > 5:
                            pass
                else:
                    ballast.unlink(missing_ok=True)
                drawn = rng.random(shape) < 0.02
                answer = snap.draw("scribble", drawn)
                statuses.add(answer.status)
                if answer.status == 200:
                    expected |= drawn
                    np.testing.assert_array_equal(snap.mask(answer), expected)
                else:
                    assert answer.status == 503 and "nothing was changed" in answer.error
        with serving(Painter(), folder=disk) as server:
            snap.url = f"http://127.0.0.1:{server.port}"
            expected[0, 0, 0] = True
            np.testing.assert_array_equal(snap.mask(snap.point(0, 0, 0)), expected)
    assert statuses == {200, 503}
