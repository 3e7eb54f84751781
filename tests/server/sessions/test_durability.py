"""A session outlives the server, retries, missing folders and full disks; damaged files are set aside."""

from __future__ import annotations

import contextlib
import shutil
import zlib
from concurrent import futures
from pathlib import Path

import numpy as np

from dls.server.sessions import journal
from tests.server.sessions.example import CLICKS, IMAGE, mask_after
from tests.support.disks import small_disk
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap, described, packed


def test_a_session_outlives_the_server(tmp_path: Path) -> None:
    """The next process has the image, the prompts, a reset session and a session without an image."""
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
        np.testing.assert_array_equal(worked.mask(worked.point(*CLICKS[2])), mask_after(CLICKS))
        np.testing.assert_array_equal(was_reset.mask(was_reset.point(*CLICKS[1])), mask_after(CLICKS[1:2]))
        assert empty.point(1, 1, 1).status == 409
        assert empty.upload(IMAGE).status == 200
        np.testing.assert_array_equal(empty.mask(empty.point(*CLICKS[0])), mask_after(CLICKS[:1]))
        assert ended.point(*CLICKS[1]).status == 404


def test_the_first_requests_at_once_all_find_the_session(tmp_path: Path) -> None:
    """After a restart, eight requests of one session share the one reading of its files; none gets 409."""
    with serving(folder=tmp_path) as server:
        snaps = [ItkSnap(server.port) for _ in range(6)]
        for snap in snaps:
            snap.start()
            snap.upload(IMAGE)
            snap.point(*CLICKS[0])
    with serving(folder=tmp_path) as server, futures.ThreadPoolExecutor(8) as pool:
        for snap in snaps:
            snap.url = f"http://127.0.0.1:{server.port}"
            answers = [pool.submit(snap.point, *CLICKS[1]) for _ in range(8)]
            assert [answer.result().status for answer in answers] == [200] * 8


def test_removed_folders_are_created_again(tmp_path: Path) -> None:
    """A session whose files were removed is refused; the next one works, and its folders are private again."""
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        shutil.rmtree(tmp_path / "own")
        assert snap.point(*CLICKS[0]).status == 503
        snap.start()
        assert snap.upload(IMAGE).status == 200
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[0])), mask_after(CLICKS[:1]))
        assert (tmp_path / "own" / "home").stat().st_mode & 0o777 == 0o700


def test_a_repeated_request_is_applied_once(tmp_path: Path) -> None:
    """A prompt that is sent again with the same name gets the same mask, also from the next process."""
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
        journals = list(tmp_path.glob(f"own/home/{snap.session}/prompts-*"))
        manifest = journal.decode_manifest(journals[0].with_name("session").read_bytes())
        assert len(journal.decode_journal(journals[0].read_bytes(), manifest).records) == 1
        assert snap.get(f"/end_session/{snap.session}").status == 200
        assert snap.get(f"/end_session/{snap.session}").status == 404
        assert snap.get(f"/end_session/{snap.session}", ("X-Dls-Again: 1",)).status == 200
        assert not journals[0].parent.exists()


def test_a_late_copy_of_a_request_changes_nothing(tmp_path: Path) -> None:
    """What an old connection delivers after later requests were applied is refused: prompts, resets and images."""
    path = "/v2/process_point_interaction/{}?point={}&point=20&point=15&foreground=true"
    names = [(f"X-Dls-Request: 00ff-{number}",) for number in range(20)]
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        assert snap.get(path.format(snap.session, 25), names[9]).status == 200
        expected = snap.mask(snap.get(path.format(snap.session, 5), names[10]))
        late = [
            snap.get(path.format(snap.session, 25), names[9]),
            snap.get(path.format(snap.session, 15), names[8]),  # given up, and never applied
            snap.get(f"/reset_interactions/{snap.session}", names[7]),
            snap.upload(IMAGE, headers=names[6]),
        ]
        assert {answer.status for answer in late} == {409}
        assert all("A later request was applied before" in answer.error for answer in late)
        np.testing.assert_array_equal(snap.mask(snap.get(path.format(snap.session, 5), names[10])), expected)
        other_run = snap.get(path.format(snap.session, 25), ("X-Dls-Request: 0a-1",))
        assert other_run.status == 200 and snap.get(f"/reset_interactions/{snap.session}", names[11]).status == 200
        assert snap.get(path.format(snap.session, 5), names[10]).status == 409


def test_a_full_disk_refuses_and_changes_nothing(tmp_path: Path) -> None:
    """An upload and a scribble without space are refused, and the session goes on when there is space again."""
    noise = np.random.default_rng(0).normal(size=(80, 64, 64)).astype(np.float32)
    with small_disk(tmp_path / "disk", "1m") as disk, serving(folder=disk) as server:
        snap = ItkSnap(server.port)
        snap.start()
        assert snap.upload(IMAGE).status == 200
        snap.point(*CLICKS[0])
        full = disk / "full"
        answer = snap.post(f"/upload_raw/{snap.session}", packed(noise), described(noise.shape))
        assert answer.status == 503 and "No space left" in answer.error and "--session-dir" in answer.error
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[1])), mask_after(CLICKS[:2]))
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
    assert any(np.array_equal(after, mask_after([*before, CLICKS[2]])) for before in clicks)


def test_damaged_sessions_are_set_aside(tmp_path: Path) -> None:
    """A damaged manifest, another version and a missing image give 404; an incomplete last prompt is cut off."""
    sessions = []
    with serving(folder=tmp_path) as server:
        for _ in range(4):
            snap = ItkSnap(server.port)
            sessions.append(snap.start())
            snap.upload(IMAGE)
            snap.point(*CLICKS[0])
    home = tmp_path / "own" / "home"
    (home / sessions[0] / "session").write_bytes(b'{"format": 1}\n00000000\n')
    other = (home / sessions[1] / "session").read_bytes().replace(b'"format": 2', b'"format": 3').split(b"\n")[0]
    (home / sessions[1] / "session").write_bytes(other + b"\n%08x\n" % zlib.crc32(other))
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
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[1])), mask_after(CLICKS[:2]))
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[2])), mask_after(CLICKS))


def test_a_session_belongs_to_one_server(tmp_path: Path) -> None:
    """A second server answers 409 while the first one has the session, and finds it after the first has ended."""
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
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[1])), mask_after(CLICKS[:2]))
