"""A session outlives the engine's process, the server, and lack of room; what is broken is set aside."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dls.errors import ListenError
from dls.server.engines.region import RegionEngine
from dls.server.sessions import journal
from dls.server.sessions.journal import Record
from dls.server.sessions.store import Folders, SessionStore
from dls.server.volume import LASSO, Geometry, Prompt, Volume
from tests.support.engines import TROUBLE
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.synthetic import ellipsoid, noisy

TRUTH = ellipsoid((30, 40, 50), (15, 20, 25), (8, 9, 10))
IMAGE = noisy(TRUTH, 5, np.random.default_rng(3))
CLICKS = [(15, 20, 25), (12, 20, 25), (18, 22, 28)]


def expected(clicks: list[tuple[int, int, int]]) -> np.ndarray:
    """The engine's own answer to the clicks."""
    direct = RegionEngine().open(Volume(IMAGE.copy(), Geometry(IMAGE.shape)))
    for z, y, x in clicks:
        direct.add(Prompt.point(z, y, x, foreground=True))
    return direct.mask


def test_a_session_outlives_the_server(tmp_path: Path) -> None:
    """Image, prompts, a reset, a session without an image: all are there for the next process."""
    with serving(folder=tmp_path) as server:
        worked, was_reset, empty, ended = (ItkSnap(server.port) for _ in range(4))
        for snap in (worked, was_reset, empty, ended):
            snap.start()
        for snap in (worked, was_reset, ended):
            snap.upload(IMAGE)
            snap.point(*CLICKS[0])
        worked.point(*CLICKS[1])
        was_reset.get(f"/reset_interactions/{was_reset.session}")
        ended.get(f"/end_session/{ended.session}")
    with serving(folder=tmp_path) as server:
        for snap in (worked, was_reset, empty, ended):
            snap.url = f"http://127.0.0.1:{server.port}"
        np.testing.assert_array_equal(worked.mask(worked.point(*CLICKS[2])), expected(CLICKS))
        np.testing.assert_array_equal(was_reset.mask(was_reset.point(*CLICKS[1])), expected(CLICKS[1:2]))
        assert empty.point(1, 1, 1).status == 409
        assert empty.upload(IMAGE).status == 200
        np.testing.assert_array_equal(empty.mask(empty.point(*CLICKS[0])), expected(CLICKS[:1]))
        assert ended.point(*CLICKS[1]).status == 404


def test_first_requests_that_come_at_once_all_find_the_session(tmp_path: Path) -> None:
    """After a restart, eight requests of one session wait for the one that opens its files; none gets 409."""
    with serving(folder=tmp_path) as server:
        snaps = [ItkSnap(server.port) for _ in range(6)]
        for snap in snaps:
            snap.start()
            snap.upload(IMAGE)
            snap.point(*CLICKS[0])
    with serving(folder=tmp_path) as server, futures.ThreadPoolExecutor(8) as pool:
        for snap in snaps:
            snap.url = f"http://127.0.0.1:{server.port}"
            asked = [pool.submit(snap.point, *CLICKS[1]) for _ in range(8)]
            assert [answer.result().status for answer in asked] == [200] * 8


def test_folders_that_somebody_removed_are_made_again(tmp_path: Path) -> None:
    """A session whose files are gone says so at its next step; the next one works, and is private as before."""
    fast = tmp_path / "fast" / "dls-0" / "x"
    with serving(folder=tmp_path, fast=fast) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        shutil.rmtree(tmp_path / "own")
        shutil.rmtree(tmp_path / "fast")
        assert snap.point(*CLICKS[0]).status == 503
        snap.start()
        assert snap.upload(IMAGE).status == 200
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[0])), expected(CLICKS[:1]))
        assert {path.stat().st_mode & 0o777 for path in (tmp_path / "own" / "home", fast)} == {0o700}


def test_a_request_sent_again_is_not_applied_again(tmp_path: Path) -> None:
    """A prompt whose answer was lost, with the same name: the mask as it is, also from the next process."""
    path = "/v2/process_point_interaction/{}?point=25&point=20&point=15&foreground=true"
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        first = snap.get(path.format(snap.session), ("X-Dls-Request: one",))
        again = snap.get(path.format(snap.session), ("X-Dls-Request: one", "X-Dls-Again: 1"))
        assert first.body == again.body
    with serving(folder=tmp_path) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        later = snap.get(path.format(snap.session), ("X-Dls-Request: one",))
        np.testing.assert_array_equal(snap.mask(later), snap.mask(first))
        kept = list(tmp_path.glob(f"own/home/{snap.session}/prompts-*"))
        assert len(journal.read_journal(kept[0].read_bytes()).records) == 1
        assert snap.get(f"/end_session/{snap.session}").status == 200
        assert snap.get(f"/end_session/{snap.session}").status == 404
        assert snap.get(f"/end_session/{snap.session}", ("X-Dls-Again: 1",)).status == 200
        assert not kept[0].parent.exists()


def test_files_are_for_their_user_only(tmp_path: Path) -> None:
    """Folders 0700, files 0600; the image in the fast folder while there is room."""
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
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[0])), expected(CLICKS[:1]))


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A disk of its own that is soon full."""
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def test_a_full_disk_refuses_and_changes_nothing(tmp_path: Path) -> None:
    """An upload and a click without room: a sentence, the old state intact, and on it goes when there is room."""
    noise = np.random.default_rng(0).normal(size=(80, 64, 64)).astype(np.float32)
    with small_disk(tmp_path / "disk", "1m") as disk, serving(folder=disk) as server:
        snap = ItkSnap(server.port)
        snap.start()
        assert snap.upload(IMAGE).status == 200
        snap.point(*CLICKS[0])
        full = disk / "full"
        answer = snap.post(f"/upload_raw/{snap.session}", *upload_of(noise))
        assert answer.status == 503 and "No space left" in answer.error and "--session-dir" in answer.error
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[1])), expected(CLICKS[:2]))
        with full.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"0" * 1024):
                pass
        drawn = np.random.default_rng(1).random(IMAGE.shape) < 0.001  # random bits fill more than the last page
        drawn[0, 0, 0] = drawn[29, 39, 49] = True
        for _ in range(10):
            answer = snap.draw("scribble", drawn)
            if answer.status != 200:
                break
            snap.get(f"/reset_interactions/{snap.session}")
        assert answer.status == 503, answer.status
        full.unlink()
        after = snap.mask(snap.point(*CLICKS[2]))
    clicks = [CLICKS[:2], []]
    assert any(np.array_equal(after, expected([*before, CLICKS[2]])) for before in clicks)


def upload_of(volume: np.ndarray) -> tuple[bytes, bytes]:
    from tests.support.itksnap import described, packed

    return packed(volume), described(volume.shape)


def test_an_image_goes_on_on_the_next_disk(tmp_path: Path) -> None:
    """Where the fast folder is full in the middle of an image, it goes on in the other, and nobody notices."""
    data = np.random.default_rng(0).normal(size=(40, 64, 64)).astype(np.float32).tobytes()
    with small_disk(tmp_path / "disk", "300k") as disk:
        opened = SessionStore(Folders(tmp_path / "own" / "home", disk / "fast")).open()
        kept = opened.create("0" * 8 + "-0000" * 3 + "-" + "0" * 12, "m", "e")
        arriving = kept.arriving(0)
        for start in range(0, len(data), 50_000):
            arriving.write(data[start : start + 50_000])
        arriving.finish()
        assert arriving.path.read_bytes() == data and tmp_path / "own" in arriving.path.parents
        assert not list(disk.rglob("image*"))
        kept.release()


def test_what_is_broken_is_set_aside(tmp_path: Path) -> None:
    """A manifest that was written over, one of another version, an image that is gone: said, not trusted, not fatal."""
    sessions = []
    with serving(folder=tmp_path) as server:
        for _ in range(4):
            snap = ItkSnap(server.port)
            sessions.append(snap.start())
            snap.upload(IMAGE)
            snap.point(*CLICKS[0])
    home = tmp_path / "own" / "home"
    (home / sessions[0] / "session").write_bytes(b'{"format": 1}\n00000000\n')
    other = (home / sessions[1] / "session").read_bytes().replace(b'"format": 1', b'"format": 2').split(b"\n")[0]
    (home / sessions[1] / "session").write_bytes(other + b"\n%08x\n" % journal.zlib.crc32(other))
    next((home / sessions[2]).glob("image-*")).unlink()
    torn = next((home / sessions[3]).glob("prompts-*"))
    torn.write_bytes(torn.read_bytes() + b"\x50\0\0\0half a record")
    with serving(folder=tmp_path) as server:
        for session in sessions[:3]:
            snap = ItkSnap(server.port)
            snap.session = session
            assert snap.point(*CLICKS[1]).status == 404
            assert (home / f"broken-{session}").is_dir()
        snap.session, snap.shape = sessions[3], IMAGE.shape
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[1])), expected(CLICKS[:2]))
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[2])), expected(CLICKS))


def test_records_survive_the_journal() -> None:
    """Every kind of prompt reads back as it was; a flipped bit ends the journal there."""
    rng = np.random.default_rng(0)
    records = [
        Record(Prompt.point(1, 2, 3, foreground=False), "a", 1),
        Record(Prompt(LASSO, True, (0, 5, 7), rng.random((1, 33, 65)) < 0.5), "b", 2),
        Record(Prompt.point(9, 8, 7, foreground=True), "", 4_000_000_000),
    ]
    parts = [journal.write_record(record) for record in records]
    read = journal.read_journal(b"".join(parts))
    assert read.length == sum(map(len, parts))
    for before, after in zip(records, read.records, strict=True):
        assert (before.request, before.mask, before.prompt.kind) == (after.request, after.mask, after.prompt.kind)
        assert before.prompt.origin == after.prompt.origin and before.prompt.foreground == after.prompt.foreground
        np.testing.assert_array_equal(before.prompt.mask, after.prompt.mask)
    for at in (3, len(parts[0]) + 20, len(parts[0]) + len(parts[1]) - 1):
        data = bytearray(b"".join(parts))
        data[at] ^= 1
        assert len(journal.read_journal(bytes(data)).records) == (0 if at < len(parts[0]) else 1)


def test_old_sessions_go(tmp_path: Path) -> None:
    """After the time to live without use, and what a killed server left half at once; what is in use stays."""
    fast = tmp_path / "own" / "fast"
    opened = SessionStore(Folders(tmp_path / "own" / "home", fast), ttl=100).open()
    names = [f"{number}" * 8 + "-0000" * 3 + "-" + "0" * 12 for number in range(4)]
    made = [opened.create(name, "m", "e") for name in names]
    for kept in made:
        arriving = kept.arriving(10)
        arriving.write(b"x")
        kept.take_image(arriving, Geometry((1, 1, 1)), "")
        left = kept.arriving(10)
        left.write(b"never taken")
        left.finish()
    for name in names[:3]:
        for path in (home := tmp_path / "own" / "home" / name, *home.iterdir()):
            os.utime(path, (0, time.time() - 200))
    for kept in (made[0], made[1], made[3]):
        kept.release()
    opened.expire((names[1],))  # the third is held by a server
    assert [(tmp_path / "own" / "home" / name).exists() for name in names] == [False, True, True, True]
    assert [(fast / name).exists() for name in names] == [False, True, True, True]
    assert len(list((fast / names[3]).iterdir())) == 2
    found = opened.find(names[3])
    assert found and len(list((fast / names[3]).iterdir())) == 1
    for kept in (found, made[2]):
        kept.release()


def test_one_server_a_session(tmp_path: Path) -> None:
    """Two would write over each other's prompts; when the first has ended, the second finds it."""
    with serving(folder=tmp_path) as first, serving(folder=tmp_path) as second:
        snap = ItkSnap(first.port)
        snap.start()
        snap.upload(IMAGE)
        snap.point(*CLICKS[0])
        snap.url = f"http://127.0.0.1:{second.port}"
        answer = snap.point(*CLICKS[1])
        assert answer.status == 409 and "another server" in answer.error
    with serving(folder=tmp_path) as third:
        snap.url = f"http://127.0.0.1:{third.port}"
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[1])), expected(CLICKS[:2]))


@dataclass
class Served:
    """A server in a process, with an engine that has trouble on demand."""

    process: subprocess.Popen[bytes]
    snap: ItkSnap
    trouble: Path

    def engine(self) -> int:
        """The number of the engine's process."""
        path = Path(f"/proc/{self.process.pid}/task")
        children = [int(word) for task in path.iterdir() for word in (task / "children").read_text().split()]
        return next(pid for pid in children if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    from tests.support.processes import free_port

    port = free_port()
    environment = {**os.environ, TROUBLE: str(tmp_path)}
    command = [sys.executable, "-m", "dls", "serve", "--port", str(port), "--engine", "tests.support.engines:Troubled"]
    command += ["--session-dir", str(tmp_path / "sessions")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        snap = ItkSnap(port)
        for _ in range(200):
            with contextlib.suppress(Exception):
                snap.start()
                break
            time.sleep(0.05)
        assert snap.upload(IMAGE).status == 200
        snap.point(*CLICKS[0])
        yield Served(process, snap, tmp_path)
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_an_engine_that_dies_is_replaced(served: Served) -> None:
    """Between prompts, in the middle of one, or by an error of the GPU: the click is only slow."""
    before = served.engine()
    os.kill(before, signal.SIGKILL)
    np.testing.assert_array_equal(served.snap.mask(served.snap.point(*CLICKS[1])), expected(CLICKS[:2]))
    assert served.engine() != before
    for fault in ("die", "cuda"):
        served.snap.get(f"/reset_interactions/{served.snap.session}")
        for click in CLICKS[:2]:
            served.snap.point(*click)
        (served.trouble / fault).touch()
        np.testing.assert_array_equal(served.snap.mask(served.snap.point(*CLICKS[2])), expected(CLICKS))
        assert not (served.trouble / fault).exists()


def test_an_engine_that_dies_of_a_prompt_each_time(served: Served) -> None:
    """A sentence why, nothing changed, the server goes on, and so does the session."""
    for fault, said in (("die", "killed"), ("cuda", "device-side assert")):
        (served.trouble / fault).write_text("always")
        answer = served.snap.point(*CLICKS[1])
        assert answer.status == 500 and said in answer.error and "Nothing was changed" in answer.error
        (served.trouble / fault).unlink()
    np.testing.assert_array_equal(served.snap.mask(served.snap.point(*CLICKS[1])), expected(CLICKS[:2]))


@pytest.mark.slow
def test_an_engine_that_is_stopped_is_replaced(served: Served) -> None:
    """One that says nothing for a minute is killed."""
    (served.trouble / "stop").touch()
    np.testing.assert_array_equal(served.snap.mask(served.snap.point(*CLICKS[1])), expected(CLICKS[:2]))


def test_the_engine_ends_with_its_server(served: Served) -> None:
    """However that ends."""
    from tests.support.processes import is_gone

    engine = served.engine()
    served.process.kill()
    served.process.wait()
    for _ in range(100):
        if is_gone(engine):
            return
        time.sleep(0.05)
    raise AssertionError("the engine's process lives on")


def test_the_session_folder_that_is_taken(tmp_path: Path) -> None:
    """A folder of another user is not used."""
    folder = tmp_path / "own" / "home"
    folder.mkdir(parents=True)
    if os.getuid() == 0:
        shutil.chown(folder, 12345)
        with pytest.raises(ListenError, match="somebody else"):
            SessionStore(Folders(folder)).open()
