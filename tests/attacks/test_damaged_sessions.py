"""Row 4, damaged files of a session: a refusal in a sentence, never a mask that is not the session's."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dls.contract import MANIFEST_FILE, REQUEST_HEADER
from dls.server.engines.region import RegionEngine
from dls.server.volume import Geometry, Prompt, Volume
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.synthetic import ellipsoid, noisy

SHAPE = (16, 24, 24)
IMAGE = noisy(ellipsoid(SHAPE, (8, 12, 12), (5, 7, 7)), 5, np.random.default_rng(5))
CLICKS = [(8, 12, 12, True), (2, 2, 2, False), (6, 12, 12, True), (8, 20, 20, False), (10, 12, 10, True)]
LAST = (8, 14, 14, True)


def expected(clicks: list[tuple[int, int, int, bool]]) -> np.ndarray:
    """The engine's own answer to the clicks."""
    direct = RegionEngine().open(Volume(IMAGE.copy(), Geometry(SHAPE)))
    for z, y, x, foreground in clicks:
        direct.add(Prompt.point(z, y, x, foreground=foreground))
    return direct.mask


ANSWER = expected([*CLICKS, LAST])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """The files of two sessions with five prompts each, whose server has ended; and their ids."""
    folder = tmp_path_factory.mktemp("stored")
    with serving(folder=folder) as server:
        snaps = [ItkSnap(server.port) for _ in range(2)]
        for snap, clicks in zip(snaps, (CLICKS, CLICKS[::-1]), strict=True):
            snap.start()
            assert snap.upload(IMAGE).status == 200
            for z, y, x, foreground in clicks:
                assert snap.point(z, y, x, foreground).status == 200
    yield folder, [snap.session for snap in snaps]


def ask_again(folder: Path, session: str, *, may_refuse: bool = True) -> None:
    """Click once more in a new server: the right mask, or a refusal in a sentence."""
    with serving(folder=folder) as server:
        snap = ItkSnap(server.port)
        snap.session, snap.shape = session, SHAPE
        answer = snap.point(*LAST)
        if answer.status == 200 or not may_refuse:
            np.testing.assert_array_equal(snap.mask(answer), ANSWER)
        else:
            assert answer.status == 409 and "damaged" in answer.error


def records(data: bytes) -> list[bytes]:
    """Split a journal: each record is a length and a checksum of four bytes each, and what they speak of."""
    found, start = [], 0
    while start + 8 <= len(data):
        stop = start + 8 + int.from_bytes(data[start : start + 4], "little")
        found.append(data[start:stop])
        start = stop
    return found


def swap(data: bytes, at: float) -> bytes:
    parts = records(data)
    index = int(at * (len(parts) - 1))
    parts[index], parts[index + 1] = parts[index + 1], parts[index]
    return b"".join(parts)


def leave_out(data: bytes, at: float) -> bytes:
    parts = records(data)
    del parts[int(at * len(parts))]
    return b"".join(parts)


def flip(data: bytes, at: float) -> bytes:
    index = int(at * len(data))
    return data[:index] + bytes([data[index] ^ 1 << (index % 8)]) + data[index + 1 :]


DAMAGES: dict[str, Callable[[bytes, float], bytes]] = {
    "flip": flip,
    "truncate": lambda data, at: data[: int(at * len(data))],
    "zeros": lambda data, at: data + bytes(int(at * 64)),
    "swap": swap,
    "leave out": leave_out,
    "repeat": lambda data, at: data + records(data)[int(at * len(records(data)))],
}
RATIO = st.floats(0, 1, exclude_max=True)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(DAMAGES)), at=RATIO)
def test_a_damaged_journal_never_gives_a_mask(
    stored: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory, kind: str, at: float
) -> None:
    """Row 4: whatever the damage is, the next click is refused, or gives voxel for voxel what it would have given."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(stored[0], folder, dirs_exist_ok=True)
    [journal] = folder.glob(f"own/home/{stored[1][0]}/prompts-*")
    journal.write_bytes(DAMAGES[kind](journal.read_bytes(), at))
    ask_again(folder, stored[1][0])
    shutil.rmtree(folder)


def test_zeros_at_the_end_lose_nothing(stored: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Row 4: zeros, which a file system that was cut off may leave, are the end of a journal."""
    shutil.copytree(stored[0], tmp_path, dirs_exist_ok=True)
    [journal] = tmp_path.glob(f"own/home/{stored[1][0]}/prompts-*")
    journal.write_bytes(journal.read_bytes() + bytes(8))
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.session, snap.shape = stored[1][0], SHAPE
        np.testing.assert_array_equal(snap.mask(snap.point(*LAST)), ANSWER)


def test_a_journal_that_is_gone_or_another_session_s(stored: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Row 4: a journal that is gone, or another session's, is refused in a sentence that says what to do."""
    for number, other in enumerate((None, stored[1][1])):
        folder = tmp_path / str(number)
        shutil.copytree(stored[0], folder)
        [journal] = folder.glob(f"own/home/{stored[1][0]}/prompts-*")
        if other is None:
            journal.unlink()
        else:
            shutil.copy(next(folder.glob(f"own/home/{other}/prompts-*")), journal)
        with serving(folder=folder) as server:
            snap = ItkSnap(server.port)
            snap.session, snap.shape = stored[1][0], SHAPE
            answer = snap.point(*LAST)
            assert answer.status == 409 and "damaged" in answer.error and "choose another image" in answer.error
            assert snap.get(f"/reset_interactions/{snap.session}").status == 200
            np.testing.assert_array_equal(snap.mask(snap.point(*LAST)), expected([LAST]))


def test_an_upload_after_damage_begins_anew(tmp_path: Path) -> None:
    """Row 4: a session whose journal is damaged takes a new image, and works again."""
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        snap.point(*CLICKS[0])
    [path] = tmp_path.rglob("prompts-*")
    path.write_bytes(path.read_bytes()[:-1])
    with serving(folder=tmp_path) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        assert snap.point(*LAST).status == 409
        assert snap.upload(IMAGE).status == 200
        np.testing.assert_array_equal(snap.mask(snap.point(*LAST)), expected([LAST]))


def test_a_journal_that_is_cut_off_under_a_server(tmp_path: Path) -> None:
    """Row 4: a click on a session whose journal was cut off meanwhile is refused, and the next one too."""
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        for click in CLICKS:
            assert snap.point(*click).status == 200
        [path] = tmp_path.rglob("prompts-*")
        path.write_bytes(path.read_bytes()[:-20])
        for _ in range(2):
            answer = snap.point(*LAST)
            assert answer.status == 409 and "damaged" in answer.error


def test_a_prompt_stored_by_a_server_killed_before_its_answer(tmp_path: Path) -> None:
    """Row 4: a complete record beyond what the manifest names is kept, and its request is not applied again."""
    click = "/v2/process_point_interaction/{}?point=12&point=12&point=8&foreground=true"
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(IMAGE)
        snap.point(*CLICKS[1])
        [manifest] = tmp_path.rglob(MANIFEST_FILE)
        before = manifest.read_bytes()
        first = snap.get(click.format(snap.session), (f"{REQUEST_HEADER}: one",))
    manifest.write_bytes(before)
    [path] = tmp_path.rglob("prompts-*")
    path.write_bytes(path.read_bytes() + bytes(8))
    with serving(folder=tmp_path) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        again = snap.get(click.format(snap.session), (f"{REQUEST_HEADER}: one",))
        np.testing.assert_array_equal(snap.mask(again), snap.mask(first))
        np.testing.assert_array_equal(snap.mask(first), expected([CLICKS[1], CLICKS[0]]))
        after = snap.mask(snap.point(*CLICKS[2]))
        np.testing.assert_array_equal(after, expected([CLICKS[1], CLICKS[0], CLICKS[2]]))
    with serving(folder=tmp_path) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        after = snap.mask(snap.point(*CLICKS[3]))
        np.testing.assert_array_equal(after, expected([CLICKS[1], CLICKS[0], CLICKS[2], CLICKS[3]]))


def as_in_the_release_before(folder: Path) -> None:
    """Rewrite a session's files as that release wrote them: no end in the manifest, records that are not chained."""
    manifest = folder / MANIFEST_FILE
    fields = json.loads(manifest.read_bytes().partition(b"\n")[0])
    del fields["end"]
    line = json.dumps({**fields, "format": 1}).encode()
    manifest.write_bytes(line + b"\n%08x\n" % zlib.crc32(line))
    path = folder / fields["journal"]
    payloads = [record[8:] for record in records(path.read_bytes())]
    path.write_bytes(b"".join(struct.pack("<II", len(each), zlib.crc32(each)) + each for each in payloads))
    for mask in folder.glob("mask-*"):
        mask.unlink()


def test_a_session_of_the_release_before_goes_on(stored: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Row 4: files of the release before are read, zeros at their end too, and a prompt protects them from then on."""
    shutil.copytree(stored[0], tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "own" / "home" / stored[1][0]
    as_in_the_release_before(folder)
    [path] = folder.glob("prompts-*")
    path.write_bytes(path.read_bytes() + bytes(8))
    ask_again(tmp_path, stored[1][0], may_refuse=False)
    [path] = folder.glob("prompts-*")
    assert len(list(folder.glob("mask-*"))) == 1
    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.session, snap.shape = stored[1][0], SHAPE
        np.testing.assert_array_equal(snap.mask(snap.point(*CLICKS[0])), expected([*CLICKS, LAST, CLICKS[0]]))
    path.write_bytes(swap(path.read_bytes(), 0))
    with serving(folder=tmp_path) as server:
        snap.url = f"http://127.0.0.1:{server.port}"
        answer = snap.point(*CLICKS[0])
        assert answer.status == 409 and "damaged" in answer.error
