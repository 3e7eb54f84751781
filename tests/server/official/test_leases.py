"""Leases: how they begin, go on and end, what is refused, and that they live beside ITK-SNAP's sessions."""

from __future__ import annotations

import json
import struct
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dls.contract import MANIFEST_FILE
from dls.errors import EngineError, Exhausted
from dls.server.engines.region import RegionEngine
from dls.server.http.official import MAX_SESSIONS
from dls.server.sessions import journal
from dls.server.sessions.registry import MAX_EMPTY_SESSIONS
from dls.server.wire.official import PARSERS
from tests.server.official.lease import Lease, pack, stored_folder
from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import ItkSnap
from tests.support.nninteractive import IGNORED_WARNINGS
from tests.support.official_engine import OfficialPainter
from tests.support.processes import until

pytestmark = IGNORED_WARNINGS

SHAPE = (20, 30, 40)
IMAGE = np.ones(SHAPE, np.int16)
POSTS = ["claim", "release", "heartbeat", "set_image", *PARSERS]
GETS = ["capabilities", "lease_status"]


@pytest.fixture
def engine() -> OfficialPainter:
    return OfficialPainter()


@pytest.fixture
def server(engine: OfficialPainter, tmp_path: Path) -> Iterator[LiveServer]:
    with serving(engine, folder=tmp_path) as live:
        yield live


def begin(port: int) -> Lease:
    """Return a lease with an image, a buffer and a point."""
    lease = Lease(port)
    for reply in (lease.set_image(IMAGE), lease.set_buffer(SHAPE), lease.point(10, 10, 10)):
        assert reply.status == 200, reply.body
    return lease


def test_a_lease_begins_and_ends(server: LiveServer, tmp_path: Path) -> None:
    """A claim says what clients need; a release removes the files, and the lease is gone; a second one is no error."""
    claimed = Lease(server.port, "-").ask("POST", "/claim").json
    assert claimed["liveness_timeout_seconds"] == 60 and claimed["max_sessions"] == MAX_SESSIONS
    lease = Lease(server.port, claimed["lease_token"])
    assert lease.ask("GET", "/healthz").json == {"ok": True}
    remaining = {"remaining_seconds": claimed["idle_timeout_seconds"]}
    assert lease.post("/heartbeat", {}).json == remaining
    assert lease.ask("GET", "/lease_status").json == {**remaining, "idle_timeout_seconds": 7 * 86400}
    folder = stored_folder(tmp_path, lease.token)
    for _ in range(2):
        assert lease.ask("POST", "/release").json == {"released": True}
        assert not folder.exists()
        assert lease.post("/undo", {}).detail == "lease expired or unknown"


@pytest.mark.parametrize(
    "route", [name for name in (*POSTS, *GETS) if name not in ("claim", "release", "capabilities")]
)
def test_a_lease_that_is_not_there_is_410(server: LiveServer, route: str) -> None:
    """Every route answers 410 in the library's words: without a token, for an unknown one, for one that is nonsense."""
    method = "GET" if route in GETS else "POST"
    tokens = {
        "": "lease token missing",
        uuid.uuid4().hex: "lease expired or unknown",
        "../x": "lease expired or unknown",
    }
    for token, detail in tokens.items():
        reply = Lease(server.port, token or "-").ask(method, f"/{route}", b"{}", X_Lease_Token=token)
        assert (reply.status, reply.detail) == (410, detail)


def test_leases_and_sessions_of_itksnap_do_not_know_each_other(server: LiveServer, tmp_path: Path) -> None:
    """A lease's name is unknown to ITK-SNAP's routes, and a session's to these; both go on side by side."""
    lease, snap = begin(server.port), ItkSnap(server.port)
    snap.start("painter")
    assert snap.upload(IMAGE.astype(np.float32)).status == 200
    stroke = np.zeros(SHAPE, bool)
    stroke[5, 5, 5:9] = True
    assert snap.mask(snap.draw("scribble", stroke)).sum() == 4
    taken, snap.session = snap.session, str(uuid.UUID(hex=lease.token))
    assert snap.draw("scribble", stroke).status == snap.get(f"/reset_interactions/{snap.session}").status == 404
    assert Lease(server.port, taken.replace("-", "")).point(1, 1, 1).status == 410
    assert lease.point(3, 20, 30).box == [[1, 6], [18, 23], [28, 33]]
    snap.session = taken
    assert snap.mask(snap.draw("scribble", stroke)).sum() == 4
    assert snap.get(f"/end_session/{uuid.UUID(hex=lease.token)}").status == 200, "dls sessions ends both kinds"
    assert lease.point(1, 1, 1).status == 410


def test_the_files_of_both_kinds(server: LiveServer, tmp_path: Path) -> None:
    """A lease's manifest has a format that releases before refuse; that of an ITK-SNAP session is as it was."""
    lease, snap = begin(server.port), ItkSnap(server.port)
    official = json.loads((stored_folder(tmp_path, lease.token) / MANIFEST_FILE).read_bytes().partition(b"\n")[0])
    session = snap.start("painter").replace("-", "")
    plain = json.loads((stored_folder(tmp_path, session) / MANIFEST_FILE).read_bytes().partition(b"\n")[0])
    assert official["format"] == 3 and plain["format"] == 2
    assert set(official) - set(plain) == {"carried"} and set(plain) <= set(official)


def test_a_server_without_such_an_engine_says_so() -> None:
    """Where the engine can't serve these clients, every route but one answers 501 and names the option."""
    with serving(RegionEngine()) as server:
        lease = Lease(server.port, "-")
        assert lease.ask("GET", "/healthz").status == 200
        for method, names in (("GET", GETS), ("POST", POSTS)):
            for name in names:
                reply = lease.ask(method, f"/{name}", b"{}")
                assert reply.status == 501 and "--engine nninteractive" in reply.detail
    with serving(OfficialPainter(), native_api=False) as server:
        assert Lease(server.port, "-").ask("POST", "/claim").status == 404


def test_another_method_is_refused(server: LiveServer) -> None:
    """Each address takes its own method: another one is answered with 405."""
    lease = Lease(server.port)
    for method, names in (("GET", POSTS), ("POST", [*GETS, "healthz"])):
        for name in names:
            reply = lease.ask(method, f"/{name}")
            assert reply.status == 405 and "another method" in reply.detail


def test_a_claim_while_the_engine_loads(engine: OfficialPainter, tmp_path: Path) -> None:
    """A claim waits for the engine; when that takes too long it gets 503, the capabilities 504, with the reason."""
    engine.load_on.clear()
    with serving(engine, folder=tmp_path, answer_seconds=0.2) as server:
        lease = Lease(server.port, "-")
        refused = lease.ask("POST", "/claim")
        assert refused.status == 503 and refused.headers["retry-after"] == "10" and "not ready" in refused.detail
        assert lease.ask("GET", "/capabilities").status == 504
        assert lease.ask("GET", "/healthz").status == 200
        engine.load_on.set()
    engine.load_on.clear()
    with serving(engine, folder=tmp_path) as server:
        tokens: list[str] = []
        waiting = threading.Thread(target=lambda: tokens.append(Lease(server.port).token))
        waiting.start()
        engine.load_on.set()
        waiting.join()
        assert tokens and Lease(server.port, tokens[0]).ask("GET", "/capabilities").json == {"do_autozoom": True}


def test_a_lease_while_the_engine_is_brought_back(engine: OfficialPainter, tmp_path: Path) -> None:
    """Heartbeats go on whatever the engine does; a prompt gets 504 and is applied when the engine is there again."""
    with serving(engine, folder=tmp_path, answer_seconds=3.0) as server:
        lease = begin(server.port)
        engine.load_on.clear()
        engine.losses = 1
        reply = lease.point(3, 20, 30)
        assert reply.status == 504 and "not ready" in reply.detail
        assert lease.post("/heartbeat", {}).status == 200
        assert lease.ask("POST", "/claim").status == 503
        engine.load_on.set()
        until(lambda: lease.post("/undo", {}).status == 200)


def test_an_engine_that_can_not_be_loaded_again(engine: OfficialPainter, tmp_path: Path) -> None:
    """A claim is 503 with the reason, everything else 504; no request is 500, and the lease is still there."""
    with serving(engine, folder=tmp_path) as server:
        lease = begin(server.port)
        engine.load_failure = EngineError("The driver is gone.")
        engine.losses = 1
        for reply, status in (
            (lease.point(3, 20, 30), 504),
            (lease.ask("GET", "/capabilities"), 504),
            (lease.ask("POST", "/claim"), 503),
        ):
            assert reply.status == status and "The driver is gone." in reply.detail
        assert lease.post("/heartbeat", {}).status == 200


def test_no_memory_is_507(server: LiveServer, engine: OfficialPainter) -> None:
    """Lack of memory or space is no 503, which clients take for too many sessions; nothing is changed."""
    lease = begin(server.port)
    for failure in (Exhausted("The GPU has not enough memory for this step; nothing was changed."), MemoryError()):
        engine.failure = failure
        assert lease.point(3, 20, 30).status == 507
    engine.failure = None
    lease.point(3, 20, 30)
    assert lease.copy is not None and lease.copy.sum() == 2 * 125


def test_sessions_take_turns_in_a_small_budget(engine: OfficialPainter, tmp_path: Path) -> None:
    """Sessions of both kinds are put to sleep for one another, and wake with what they had."""
    one = engine.session_bytes(IMAGE.size)
    with serving(engine, folder=tmp_path, budget=one + one // 2) as server:
        leases, snap = [begin(server.port) for _ in range(3)], ItkSnap(server.port)
        snap.start("painter")
        assert snap.upload(IMAGE.astype(np.float32)).status == 200
        until(lambda: engine.is_open == 1)
        stroke = np.zeros(SHAPE, bool)
        stroke[5, 5, 5:9] = True
        for _ in range(2):
            for lease in leases:
                assert lease.point(3, 20, 30).status == 200 and engine.is_open == 1
            assert snap.mask(snap.draw("scribble", stroke)).sum() == 4
        assert all(lease.copy is not None and lease.copy.sum() == 2 * 125 for lease in leases)
        wide = leases[0].set_buffer(SHAPE, "int64")
        assert wide.status == 413 and "MiB" in wide.detail
        large = leases[0].set_image(np.ones((40, 60, 40), np.uint8))
        assert large.status == 413 and leases[0].point(3, 20, 30).status == 200


def test_empty_leases_are_bounded(engine: OfficialPainter, tmp_path: Path) -> None:
    """Of the leases without an image the oldest end: napari's test of a connection leaves one each time."""
    with serving(engine, folder=tmp_path) as server:
        kept = begin(server.port)
        tokens = [kept.claim() for _ in range(MAX_EMPTY_SESSIONS + 20)]
        folders = [path for path in (tmp_path / "own" / "home").iterdir() if path.is_dir()]
        assert len(folders) <= MAX_EMPTY_SESSIONS + 3
        assert Lease(server.port, tokens[0]).post("/heartbeat", {}).status == 410
        assert Lease(server.port, tokens[-1]).post("/heartbeat", {}).status == 200
        assert kept.point(3, 20, 30).status == 200


def test_what_a_lease_carries_without_an_image(engine: OfficialPainter, tmp_path: Path) -> None:
    """A switch that is set before the first image, and a buffer, are there after a restart; a new image keeps one."""
    with serving(engine, folder=tmp_path) as server:
        lease = Lease(server.port)
        assert lease.post("/set_do_autozoom", {"do_autozoom": False}).json == {}
        assert lease.set_buffer(SHAPE).json == {}
        assert lease.point(1, 1, 1).detail == "There is no image yet."
        assert lease.seed(IMAGE).detail.startswith("There is no image yet")
    again = OfficialPainter()
    with serving(again, folder=tmp_path) as server:
        lease = Lease(server.port, lease.token)
        assert lease.post("/undo", {}).meta == {"ran_prediction": False, "bbox": None}
        assert again.done == ["set_do_autozoom", "set_target_buffer", "undo"]
        assert lease.set_image(IMAGE).status == 200
        folder = stored_folder(tmp_path, lease.token)
        carried = journal.decode_manifest((folder / MANIFEST_FILE).read_bytes()).carried
        assert carried is not None and carried.autozoom is False and carried.buffer is None


def test_a_damaged_lease_is_set_aside(tmp_path: Path) -> None:
    """Where the journal or the image is damaged, the lease is gone (410), and its files are kept aside."""
    with serving(OfficialPainter(), folder=tmp_path) as server:
        leases = [begin(server.port) for _ in range(3)]
    folders = [stored_folder(tmp_path, lease.token) for lease in leases]
    [path] = folders[0].glob("prompts-*")
    path.write_bytes(path.read_bytes()[:-5])
    [image] = folders[1].glob("image-*")
    image.unlink()
    [image] = folders[2].glob("image-*")
    image.write_bytes(b"x" * image.stat().st_size)
    with serving(OfficialPainter(), folder=tmp_path) as server:
        for lease, folder in zip(leases, folders, strict=True):
            reply = Lease(server.port, lease.token).point(3, 20, 30)
            assert reply.status == 410 and reply.detail
            assert not folder.exists() and folder.with_name(f"broken-{folder.name}").exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"NNI", 400),
        (b"PNG" * 9, 400),
        (pack(IMAGE), 400),
        (pack(IMAGE[None])[:-9], 400),
        (pack(np.ones((2, *SHAPE), np.uint8)), 400),
        (pack(IMAGE[None]).replace(b"int16", b"void2"), 400),
        (struct.pack("<4sBBBB5s4qI", b"NNIA", 1, 1, 4, 5, b"uint8", 1, 9000, 9000, 9000, 700), 400),
        (struct.pack("<4sBBBB5s4qI", b"NNIA", 1, 1, 4, 5, b"uint8", 1, 9000, 9000, 9000, 700) + bytes(99999), 413),
    ],
)
def test_bad_images(server: LiveServer, body: bytes, status: int) -> None:
    """A body that is no image is refused with a sentence, and changes nothing: the image before is still there."""
    lease = begin(server.port)
    reply = lease.ask("POST", "/set_image", body)
    assert reply.status == status and reply.detail
    assert lease.ask("POST", "/set_image", pack(IMAGE[None]), X_Meta="[").detail.startswith("Bad X-Meta")
    assert lease.point(3, 20, 30).status == 200 and lease.copy is not None and lease.copy.sum() == 2 * 125


def test_bad_masks_and_fields(server: LiveServer) -> None:
    """What is missing, of another type or of another shape is refused with a sentence before anything is inflated."""
    lease = begin(server.port)
    include = {"include_interaction": True}
    for array, meta in (
        (np.ones((2, 2, 2), np.uint8), include),
        (np.ones((2, 2, 2), np.uint8), {**include, "interaction_bbox": [[0, 2], [0, 2], [39, 41]]}),
        (np.ones((2, 2, 2), np.uint8), {**include, "interaction_bbox": [[0, 2], [0, 2]]}),
        (np.ones((2, 2, 2), np.uint8), {**include, "interaction_bbox": [[0, 2], [0, 2], [3, 3]]}),
        (np.ones((2, 2, 2), np.uint8), {**include, "interaction_bbox": "x"}),
        (np.ones(SHAPE, np.uint8), {}),
        (np.ones(SHAPE, np.uint8), {"include_interaction": "yes"}),
    ):
        assert lease.send("/add_scribble_interaction", array, meta).status == 400
    assert lease.send("/add_initial_seg_interaction", np.ones((2, 2, 2), np.uint8), {}).status == 400
    for path, fields in (
        ("/add_point_interaction", {"coordinates": [1, 2], **include}),
        ("/add_point_interaction", {"coordinates": [1, 2, 10**400], **include}),
        ("/add_point_interaction", {"coordinates": [1, 2, 3]}),
        ("/add_bbox_interaction", {"bbox_coords": [[1, 2], [1, 2], [1]], **include}),
        ("/set_do_autozoom", {}),
        ("/set_target_buffer", {"shape": [1, 2, 3], "dtype": "complex64"}),
        ("/predict", []),
    ):
        assert lease.post(path, fields).status == 400 and lease.post(path, fields).detail
    assert lease.ask("POST", "/predict", b"{" * 100_000).status == 400
    assert lease.ask("POST", "/predict", b" " * (2 << 20)).status == 413
    assert lease.point(3, 20, 30).status == 200 and lease.copy is not None and lease.copy.sum() == 2 * 125


def test_a_lease_that_another_server_has(tmp_path: Path) -> None:
    """While the server before has not ended, heartbeats are answered and prompts get 504; then the lease goes on."""
    with serving(OfficialPainter(), folder=tmp_path) as server:
        token = begin(server.port).token
        with serving(OfficialPainter(), folder=tmp_path, answer_seconds=0.2) as second:
            other = Lease(second.port, token)
            assert other.post("/heartbeat", {}).status == other.ask("GET", "/lease_status").status == 200
            late = other.point(3, 20, 30)
            assert late.status == 504 and "Another server" in late.detail
    with serving(OfficialPainter(), folder=tmp_path) as server:
        assert Lease(server.port, token).point(3, 20, 30).box == [[1, 13], [8, 23], [8, 33]]
