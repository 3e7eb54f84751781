"""What a client missed comes with a later answer, and what was asked for twice is done once."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dls.errors import EngineLost
from tests.server.official.lease import Lease, Reply, stored_folder
from tests.support.http_server import serving
from tests.support.nninteractive import IGNORED_WARNINGS
from tests.support.official_engine import OfficialPainter
from tests.support.processes import until

pytestmark = IGNORED_WARNINGS

SHAPE = (20, 30, 40)
IMAGE = np.ones(SHAPE, np.int16)


@pytest.fixture
def engine() -> OfficialPainter:
    return OfficialPainter()


@pytest.fixture
def lease(engine: OfficialPainter, tmp_path: Path) -> Iterator[Lease]:
    with serving(engine, folder=tmp_path) as server:
        opened = Lease(server.port)
        assert opened.set_image(IMAGE).json == {"original_image_shape": [1, *SHAPE]}
        assert opened.set_buffer(SHAPE).json == {}
        yield opened


def cut(lease: Lease, engine: OfficialPainter, path: str, fields: object) -> None:
    """Send a request, and go away before it is answered."""
    engine.is_at_work.clear()
    engine.go_on.clear()
    body = json.dumps(fields).encode()
    done = len(engine.done)
    with socket.create_connection(("127.0.0.1", lease.port)) as sock:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Lease-Token: {lease.token}\r\n"
        sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert engine.is_at_work.wait(60)
    assert lease.post("/heartbeat", {}).status == 200  # by now the server has seen that the connection is closed
    engine.go_on.set()
    until(lambda: len(engine.done) > done)


POINT = {"coordinates": [10, 10, 10], "include_interaction": True}


def server_buffer(lease: Lease) -> np.ndarray:
    """Return the server's buffer, as a second client of the lease gets it that missed everything."""
    other = Lease(lease.port, lease.token)
    other.copy = np.zeros(SHAPE, np.uint8)
    other.point(0, 0, 0, X_Dls_Missed="1")
    return other.copy


def test_an_answer_that_the_client_did_not_wait_for_comes_with_the_next(lease: Lease, engine: OfficialPainter) -> None:
    """After a lost answer the next one brings the box of both, so that the client's copy is right."""
    cut(lease, engine, "/add_point_interaction", POINT)
    assert lease.point(3, 20, 30).box == [[1, 13], [8, 23], [8, 33]]
    assert lease.copy is not None and lease.copy[10, 10, 10] == 1 and lease.copy.sum() == 2 * 125
    assert lease.point(3, 20, 30).box == [[1, 6], [18, 23], [28, 33]], "it was delivered, and is sent once"


def test_what_the_local_port_could_not_deliver_comes_with_the_next(lease: Lease) -> None:
    """The header of the local port has the same effect, on any request of the lease."""
    lease.point(10, 10, 10)
    assert lease.point(3, 20, 30, X_Dls_Missed="1").box == [[1, 13], [8, 23], [8, 33]]
    assert lease.post("/heartbeat", {}, X_Dls_Missed="1").status == 200
    assert lease.point(3, 20, 30).box == [[1, 13], [8, 23], [8, 33]]


def test_a_box_waits_for_an_answer_that_the_client_pastes(lease: Lease, engine: OfficialPainter) -> None:
    """The client ignores the box of a request that predicted nothing, so what it missed waits for the next that did."""
    cut(lease, engine, "/add_point_interaction", POINT)
    assert lease.point(3, 20, 30, run=False).meta == {"ran_prediction": False, "bbox": None}
    assert lease.post("/set_do_autozoom", {"do_autozoom": False}).json == {}
    assert lease.point(3, 20, 30).box == [[1, 13], [8, 23], [8, 33]]


def test_a_client_that_overwrote_its_copy_misses_nothing(lease: Lease, engine: OfficialPainter) -> None:
    """A reset, a new buffer and an initial segmentation overwrite the client's copy: nothing is sent again."""
    box = [[1, 6], [18, 23], [28, 33]]
    cut(lease, engine, "/add_point_interaction", POINT)
    lease.reset()
    assert lease.point(3, 20, 30).box == box
    cut(lease, engine, "/add_point_interaction", POINT)
    lease.seed(np.zeros(SHAPE, np.uint8))
    assert lease.point(3, 20, 30).box == box
    cut(lease, engine, "/add_point_interaction", POINT)
    lease.set_buffer(SHAPE)
    assert lease.point(3, 20, 30).box == box
    np.testing.assert_array_equal(lease.copy, server_buffer(lease) - cube_at_zero())


def cube_at_zero() -> np.ndarray:
    cube = np.zeros(SHAPE, np.uint8)
    cube[:3, :3, :3] = 1
    return cube


def test_a_refused_initial_segmentation_is_healed(lease: Lease, engine: OfficialPainter) -> None:
    """The client overwrites its copy before it asks; where that fails, the next answer brings the whole buffer."""
    lease.point(10, 10, 10)
    engine.failure = RuntimeError("no")
    assert lease.seed(np.ones(SHAPE, np.uint8)).status == 500
    engine.failure = None
    assert lease.copy is not None and lease.copy.all()
    assert lease.point(3, 20, 30).box == [[0, side] for side in SHAPE]
    assert lease.copy.sum() == 2 * 125


def test_a_request_that_is_sent_again_is_applied_once(lease: Lease, engine: OfficialPainter) -> None:
    """Of two requests of one name the second gets the very same answer, and what was added is undone by one undo."""
    first = lease.point(10, 10, 10, X_Dls_Request="a")
    again = lease.point(10, 10, 10, X_Dls_Request="a", X_Dls_Again="1")
    assert (again.status, again.headers["x-meta"], again.body) == (200, first.headers["x-meta"], first.body)
    undone = [lease.post("/undo", {}, X_Dls_Request="b") for _ in range(2)]
    assert [reply.meta["ran_prediction"] for reply in undone] == [True, True]
    assert engine.done[-2:] == ["add_point_interaction", "undo"]
    for _ in range(2):
        assert lease.reset(X_Dls_Request="c").json == {}
        assert lease.set_image(IMAGE, X_Dls_Request="d").json == {"original_image_shape": [1, *SHAPE]}
    assert engine.done.count("reset_interactions") == 2, "other requests came between"


@pytest.mark.parametrize("is_cut", [False, True])
def test_an_answer_before_a_restart_may_not_have_arrived(engine: OfficialPainter, tmp_path: Path, is_cut: bool) -> None:
    """A new server sends the box of the last answer again, but for the repetition of its request: that is unchanged."""
    with serving(engine, folder=tmp_path) as server:
        lease = Lease(server.port)
        lease.set_image(IMAGE)
        lease.set_buffer(SHAPE)
        first = lease.point(10, 10, 10, X_Dls_Request="a")
    with serving(OfficialPainter(), folder=tmp_path) as server:
        lease = Lease(server.port, lease.token)
        if is_cut:
            again = lease.point(10, 10, 10, X_Dls_Request="a", X_Dls_Again="1")
            assert (again.headers["x-meta"], again.body) == (first.headers["x-meta"], first.body)
            assert lease.point(3, 20, 30).box == [[1, 6], [18, 23], [28, 33]]
        else:
            assert lease.point(3, 20, 30).box == [[1, 13], [8, 23], [8, 33]]


def test_what_takes_too_long_is_answered_with_504_and_goes_on(tmp_path: Path) -> None:
    """The client gets a sentence before it gives up; the operation is applied, and the next answer brings its box."""
    engine = OfficialPainter()
    with serving(engine, folder=tmp_path, answer_seconds=3.0) as server:
        lease = Lease(server.port)
        lease.set_image(IMAGE)
        lease.set_buffer(SHAPE)
        engine.go_on.clear()
        late = lease.point(10, 10, 10)
        assert late.status == 504 and "goes on" in late.detail
        assert lease.post("/heartbeat", {}).status == lease.ask("GET", "/lease_status").status == 200
        engine.go_on.set()
        until(lambda: "add_point_interaction" in engine.done)
        assert lease.point(3, 20, 30).box == [[1, 13], [8, 23], [8, 33]]


def test_a_lost_engine_is_replaced(lease: Lease, engine: OfficialPainter) -> None:
    """The operations are replayed and the one at which it was lost is done; twice in a row it is refused with 504."""
    lease.point(10, 10, 10)
    engine.losses = 1
    assert lease.point(3, 20, 30).status == 200
    assert engine.done == ["set_target_buffer", "add_point_interaction"] * 2 + ["add_point_interaction"]
    assert lease.copy is not None and lease.copy.sum() == 2 * 125
    engine.failure = EngineLost("The engine's process died.")
    refused = lease.point(3, 3, 3)
    assert refused.status == 504 and "died" in refused.detail
    engine.failure = None
    assert lease.point(3, 3, 3).status == 200 and lease.copy.sum() == 3 * 125


@pytest.mark.parametrize(("moved", "status"), [(3, 200), (100, 410)])
def test_a_replay_that_gives_other_voxels(moved: int, status: int, tmp_path: Path) -> None:
    """A few voxels are put back as they were answered; with more the session can't go on, and is set aside."""
    engine, blob = OfficialPainter(), np.zeros(SHAPE, np.int16)
    blob[5:15, 5:15, 5:15] = 7
    with serving(engine, folder=tmp_path) as server:
        lease = Lease(server.port)
        lease.set_image(IMAGE)
        lease.set_buffer(SHAPE, "int16")
        lease.seed(blob, run=True)
        folder = stored_folder(tmp_path, lease.token)
        engine.losses, engine.moved_voxels = 1, moved
        lease.copy = np.zeros(SHAPE, np.int16)
        reply = lease.point(18, 25, 35, X_Dls_Missed="1")
        assert reply.status == status and engine.moved_voxels == 0
        if status == 410:
            assert "can't be continued" in reply.detail and not folder.exists()
            assert lease.post("/heartbeat", {}).status == 410
        else:
            blob[16:, 23:28, 33:38] = 1
            np.testing.assert_array_equal(lease.copy, blob)


def test_requests_of_one_lease_wait_for_each_other(lease: Lease, engine: OfficialPainter) -> None:
    """Two prompts at once are applied one after the other, and each is answered."""
    engine.go_on.clear()
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda at=at: replies.append(lease.point(at, 10, 10))) for at in (3, 15)]
    for thread in threads:
        thread.start()
    engine.go_on.set()
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200, 200]
    assert lease.copy is not None and lease.copy.sum() == 2 * 125
