"""The images of all sessions by their contents, what sessions may take on the disk, and what is kept of uploads."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dls.contract import DISK_SHARE, MIN_DISK
from dls.errors import NoRoom, NotHeld
from dls.remote.host import stored_sessions
from dls.server.operations import Carried
from dls.server.sessions import quota
from dls.server.sessions.copies import COPIES_FOLDER, Copies, digest_file, find_name
from dls.server.sessions.files import PART_SECONDS, SessionFiles
from dls.server.sessions.folders import Folders
from dls.server.sessions.incoming import MIN_PART
from dls.server.sessions.store import SessionStore
from dls.server.volume import Geometry
from tests.server.sessions.example import CLICKS, IMAGE, mask_after
from tests.support.disks import small_disk
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap, described, packed
from tests.support.processes import until
from tests.support.proxied_server import proxied

PART = "0123456789abcdef"
NAMES = [f"{number}" * 8 + "-0000" * 3 + "-" + "0" * 12 for number in range(4)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "own" / "home"


class Store(SessionStore):
    """A store that gives the sessions back which a test has created or found."""

    def __init__(self, home: Path, **options: Any) -> None:
        super().__init__(Folders(home), **options)
        self.given: list[SessionFiles] = []

    def create(self, session: str, model: str, engine: str, carried: Carried | None = None) -> SessionFiles:
        self.given.append(super().create(session, model, engine, carried))
        return self.given[-1]

    def find(self, session: str) -> SessionFiles | None:
        found = super().find(session)
        self.given += [found] if found else []
        return found


Opener = Callable[..., SessionStore]


@pytest.fixture
def open_store(home: Path) -> Iterator[Opener]:
    """Opens stores of the same folder."""
    opened: list[Store] = []

    def open_one(**options: Any) -> SessionStore:
        opened.append(Store(home, **options))
        return opened[-1].open()

    yield open_one
    for files in [files for store in opened for files in store.given]:
        files.release()


@pytest.fixture
def store(open_store: Opener) -> SessionStore:
    return open_store()


def with_image(store: SessionStore, name: str, contents: bytes) -> SessionFiles:
    """Create a session with an image of these bytes, which can be found by them."""
    files = store.create(name, "m", "e")
    incoming = files.receive_image()
    incoming.write(contents)
    files.set_image(incoming, Geometry((1, 1, 1)), "")
    store.copies.add(find_name(incoming.path), incoming.path)
    return files


def test_an_image_is_on_the_disk_once(store: SessionStore, home: Path) -> None:
    """Sessions whose images have the same bytes share one file, which goes with the last of them."""
    first, second = (with_image(store, name, b"image" * 10_000) for name in NAMES[:2])
    [copy] = (home / COPIES_FOLDER).iterdir()
    assert copy.stat().st_nlink == 3 and copy.name == find_name(copy)
    before = quota.taken((home,))
    third = store.create(NAMES[2], "m", "e")
    taken = third.take_image(store.copies, copy.name)
    third.set_image(taken, Geometry((1, 1, 1)), "")
    assert quota.taken((home,)) - before < 10_000 < 50_000 == taken.length
    for files in (first, second):
        files.remove()
        assert copy.exists()
    third.remove()
    assert not copy.exists()


@pytest.mark.parametrize("name", ["", "x", "../session", "a" * 64, f"{'a' * 64}-0", f"{'a' * 64}-5", f"{'A' * 64}-5"])
def test_names_that_are_none(store: SessionStore, name: str) -> None:
    """Nothing but the name of a copy that is there is ever used as part of a path."""
    files = store.create(NAMES[0], "m", "e")
    assert not store.copies.has(name)
    with pytest.raises(NotHeld):
        files.take_image(store.copies, name)


def test_copies_that_no_session_has_are_removed_at_the_start(
    store: SessionStore, open_store: Opener, home: Path
) -> None:
    """So is whatever else lies there: a session's folder that was removed by hand leaves its copy behind."""
    with_image(store, NAMES[0], b"image")
    shutil.rmtree(home / NAMES[0])
    (home / COPIES_FOLDER / "stray").touch()
    open_store()
    assert list((home / COPIES_FOLDER).iterdir()) == []


def test_the_copies_never_expire_as_a_session_would(store: SessionStore, open_store: Opener, home: Path) -> None:
    """Their folder is none of a session; and a session expires although another one uses the image that both have."""
    for name in NAMES[:2]:
        with_image(store, name, b"image").release()
    old = time.time() - 1000
    for path in (home / COPIES_FOLDER, home / NAMES[0], *(home / NAMES[0]).iterdir()):
        os.utime(path, (old, old))
    os.utime(next((home / NAMES[1]).glob("image-*")))
    again = open_store(ttl=100)
    assert (home / NAMES[0]).exists()
    again._sightings._seconds = 0
    again.remove_expired(())
    assert not (home / NAMES[0]).exists() and (home / NAMES[1]).exists()
    assert len(list((home / COPIES_FOLDER).iterdir())) == 1


def test_without_hard_links_each_image_is_sent(short_folder: Path) -> None:
    """Where images can't get a second name nothing is shared, and uploads work as they do."""
    (short_folder / "own" / "home").mkdir(parents=True)
    copies = short_folder / "own" / "home" / COPIES_FOLDER
    noise = np.random.default_rng(0).normal(size=(40, 128, 128)).astype(np.float32)
    with (
        small_disk(copies, "1m"),  # another file system: no file can have names on both
        serving(folder=short_folder, socket=str(short_folder / "s")) as live,
        proxied(live.socket) as proxy,
    ):
        proxy.endpoint.rate = 0.9e6
        for _ in range(2):
            proxy.snap.start()
            assert proxy.snap.upload(noise).status == 200
            assert proxy.snap.point(20, 60, 60).status == 200
        assert list(copies.iterdir()) == []
        asked = [channel for channel in proxy.endpoint.channels if channel.sent.startswith(b"GET /dls/images/")]
        assert asked and not any(b"X-Dls-Image" in channel.sent for channel in proxy.endpoint.channels)


def test_a_part_goes_on_where_it_ends(store: SessionStore) -> None:
    """What a request left is found by its name, with its digest, and is refused at any other length."""
    files = store.create(NAMES[0], "m", "e")
    first = files.receive_image(PART)
    first.write(bytes(MIN_PART))
    first.leave()
    length, digest = files.find_part(PART)
    assert (length, f"{digest}-{length}") == (MIN_PART, find_name(first.path))
    for held in (MIN_PART - 1, MIN_PART + 1):
        with pytest.raises(NotHeld):
            files.receive_image(PART, held)
    with pytest.raises(NotHeld):
        files.receive_image("f" * 16, MIN_PART)
    again = files.receive_image(PART, MIN_PART)
    again.write(b"rest")
    files.set_image(again, Geometry((1, 1, 1)), PART)
    assert digest_file(again.path)[1] == MIN_PART + 4 and files.find_part(PART) == (0, "")
    assert files.manifest.image and files.manifest.image.bytes == MIN_PART + 4


def test_parts_are_kept_for_a_while(store: SessionStore, open_store: Opener, home: Path) -> None:
    """A server that starts keeps those of the last hour; small ones are not kept, nor those without a name."""
    files = store.create(NAMES[0], "m", "e")
    for name, size in ((PART, MIN_PART), ("a" * 16, MIN_PART), ("b" * 16, MIN_PART - 1), ("", MIN_PART)):
        incoming = files.receive_image(name)
        incoming.write(bytes(size))
        incoming.leave()
    old = time.time() - PART_SECONDS - 1
    os.utime(home / NAMES[0] / f"part-{'a' * 16}.gz", (old, old))
    files.release()
    found = open_store().find(NAMES[0])
    assert found is not None and [path.name for path in (home / NAMES[0]).glob("*.gz")] == [f"part-{PART}.gz"]
    found.remove_parts(used={f"part-{PART}.gz"})
    assert found.find_part(PART)[0] == MIN_PART
    found.remove_parts()
    assert found.find_part(PART) == (0, "")


def test_the_sessions_unused_for_longest_make_room(open_store: Opener, home: Path) -> None:
    """Those that a server has stay, whatever their age; where they leave no room the image is refused."""
    store = open_store(disk=5 << 20)
    sessions = [with_image(store, name, bytes([number]) * (1 << 20)) for number, name in enumerate(NAMES)]
    for age, files in enumerate(reversed(sessions)):  # the first one is the oldest
        for path in (files.folder, *files.folder.iterdir()):
            os.utime(path, (time.time() - 100 * age, time.time() - 100 * age))
    for files in (sessions[1], sessions[2], sessions[3]):
        files.release()
    store.make_room(500_000)
    assert all((home / name).exists() for name in NAMES)
    store.make_room(1 << 20)
    assert [(home / name).exists() for name in NAMES] == [True, False, True, True]
    with pytest.raises(NoRoom, match=r"--session-disk\.$"):
        store.make_room(5 << 20)
    assert [(home / name).exists() for name in NAMES] == [True, False, True, True], "removed for nothing"
    with pytest.raises(NoRoom):
        store.make_room(3 << 20, in_use=(NAMES[2],))
    store.make_room(3 << 20)
    assert [(home / name).exists() for name in NAMES] == [True, False, False, False]
    assert len(list((home / COPIES_FOLDER).iterdir())) == 1


def test_a_shared_image_is_free_with_its_last_session(open_store: Opener, home: Path) -> None:
    """Two sessions of one image make room only together, and neither goes where that is not enough."""
    store = open_store(disk=3 << 20)
    for name in NAMES[:2]:
        with_image(store, name, bytes(1 << 20)).release()
    with pytest.raises(NoRoom):
        store.make_room(4 << 20)
    assert all((home / name).exists() for name in NAMES[:2])
    store.make_room(int(2.9 * (1 << 20)))
    assert not any((home / name).exists() for name in NAMES[:2])


def test_the_default_harms_nobody(home: Path) -> None:
    """A share of the file system, and on a small one what the disk itself has."""
    home.mkdir(parents=True)
    assert quota.default_limit(home) == max(int(DISK_SHARE * shutil.disk_usage(home).total), MIN_DISK)


def test_an_image_beyond_the_quota_is_refused(tmp_path: Path) -> None:
    """It gets 507 and a sentence that names the option, and the session goes on with the image that it has."""
    store = SessionStore(Folders(tmp_path / "own" / "home"), disk=400_000).open()
    noise = np.random.default_rng(0).normal(size=(60, 64, 64)).astype(np.float32)
    with serving(store=store) as server:
        snap = ItkSnap(server.port)
        snap.start()
        assert snap.upload(IMAGE).status == 200
        for headers in ((), ("Transfer-Encoding: chunked", "Content-Length:")):
            answer = snap.post(f"/upload_raw/{snap.session}", packed(noise), described(noise.shape), headers)
            assert answer.status == 507 and "--session-disk" in answer.error
        assert len(list(store._folders.home.glob("*/image-*"))) == 1
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[0])), mask_after(CLICKS[:1]))


def test_the_list_counts_a_shared_image_once(store: SessionStore, home: Path) -> None:
    """`dls sessions` shows what each session has, and what all take together; it lists no copies."""
    for name in NAMES[:3]:
        with_image(store, name, bytes(4 << 20))
    script = stored_sessions.list_script([str(home)])
    said = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=True).stdout
    found = stored_sessions.read_list(said)
    assert sorted(session.id for session in found) == NAMES[:3]
    assert all(session.kib >= 4096 for session in found)
    assert 4096 <= stored_sessions.read_total(said) < 2 * 4096


def test_an_image_that_comes_without_the_tunnel_is_not_shared(tmp_path: Path) -> None:
    """Nobody would ask for it, so nobody computes a digest; its file goes with the session."""
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        assert snap.upload(IMAGE).status == 200
        assert not (tmp_path / "own" / "home" / COPIES_FOLDER).exists()
        snap.get(f"/end_session/{snap.session}")
    until(lambda: not list((tmp_path / "own" / "home").glob("*/image-*")))


def test_two_names_of_one_file_are_left_alone(store: SessionStore, home: Path) -> None:
    """Adding an image that is there already under the same file changes nothing."""
    files = with_image(store, NAMES[0], b"image")
    path = next(files.folder.glob("image-*"))
    Copies(home).add(find_name(path), path)
    assert path.stat().st_nlink == 2 and len(list(files.folder.iterdir())) == 3
