"""Requests of every kind over real HTTP, those that are answered and those that are refused."""

from __future__ import annotations

import gzip
import re
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.failing_engine import FailingEngine
from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import Answer, ItkSnap, described, form, packed
from tests.support.processes import until
from tests.support.synthetic import dice, ellipsoid, noisy


@pytest.fixture
def snap(live: LiveServer) -> ItkSnap:
    client = ItkSnap(live.port)
    client.start()
    return client


TRUTH = ellipsoid((30, 40, 50), (15, 20, 25), (8, 9, 10))
IMAGE = noisy(TRUTH, 5, np.random.default_rng(3))


@pytest.fixture
def opened(snap: ItkSnap) -> ItkSnap:
    assert snap.upload(IMAGE).status == 200
    return snap


def test_a_click_a_scribble_a_lasso_and_a_reset(opened: ItkSnap) -> None:
    """Each prompt refines the mask; after a reset, prompts give what they give in a new session."""
    first = opened.mask(opened.point(15, 20, 25))
    assert dice(first, TRUTH) > 0.85
    stroke = np.zeros(TRUTH.shape, bool)
    stroke[15, 20, 18:32] = True
    assert dice(opened.mask(opened.draw("scribble", stroke)), TRUTH) > 0.85
    outside = np.zeros(TRUTH.shape, bool)
    outside[15, 35, 10:40] = True
    third = opened.mask(opened.draw("scribble", outside, foreground=False))
    assert not third[outside].any()
    assert opened.get(f"/reset_interactions/{opened.session}").json == {"status": "success"}
    np.testing.assert_array_equal(opened.mask(opened.point(15, 20, 25)), first)
    opened.get(f"/v2/reset_interactions/{opened.session}")
    outline = np.zeros(TRUTH.shape, bool)
    outline[15] = TRUTH[15]
    assert dice(opened.mask(opened.draw("lasso", outline)), TRUTH) > 0.85


def test_both_versions_of_a_route_do_the_same(opened: ItkSnap) -> None:
    """A current ITK-SNAP uses the routes of both protocol versions in one session."""
    mask = opened.mask(opened.point(15, 20, 25))
    assert opened.get("/start_session").json["session_id"]
    opened.get(f"/reset_interactions/{opened.session}")
    old = opened.get(f"/process_point_interaction/{opened.session}?x=25&y=20&z=15&foreground=true")
    np.testing.assert_array_equal(opened.mask(old), mask)
    assert opened.post(f"/v2/upload_raw/{opened.session}", packed(IMAGE), described(IMAGE.shape)).status == 200
    absent = opened.get(f"/v2/process_point_interaction/{opened.session}?point=25&point=20&point=15")
    assert not opened.mask(absent).any()  # foreground absent means false


def test_a_slice_a_constant_image_and_odd_numbers_are_answered(snap: ItkSnap) -> None:
    """A single slice, an image of one value, NaN and infinities give an answer and no error."""
    slice_truth = ellipsoid((1, 60, 70), (0, 30, 35), (1, 12, 14))
    assert snap.upload(noisy(slice_truth, 6, np.random.default_rng(0))).status == 200
    assert dice(snap.mask(snap.point(0, 30, 35)), slice_truth) > 0.85
    for fill in (0.0, 7.5, np.nan, np.inf, -np.inf):
        assert snap.upload(np.full((4, 5, 6), fill, np.float32)).status == 200
        assert snap.mask(snap.point(2, 2, 2))[2, 2, 2] == 1
    holed = IMAGE.copy()
    holed[0, 0, :5] = [np.nan, np.inf, -np.inf, 3e38, -3e38]
    assert snap.upload(holed).status == 200
    assert snap.mask(snap.point(15, 20, 25))[15, 20, 25] == 1


def assert_refused(answer: Answer, status: int) -> None:
    assert answer.status == status, (answer.status, answer.body)
    assert len(answer.error) > 20


def test_unknown_and_ended_sessions(snap: ItkSnap) -> None:
    """Every route answers 404 for them, and says what the user can do."""
    ended = snap.session
    assert snap.get(f"/v2/end_session/{ended}").json == {"message": "Session ended"}
    for session in (ended, "no-such-session", "%20%00"):
        snap.session = session
        assert_refused(snap.point(1, 1, 1), 404)
        assert_refused(snap.upload(IMAGE), 404)
        assert_refused(snap.draw("scribble", TRUTH), 404)
        assert_refused(snap.draw("lasso", TRUTH), 404)
        assert_refused(snap.get(f"/reset_interactions/{session}"), 404)
        assert_refused(snap.get(f"/end_session/{session}"), 404)
    assert "choose another image" in snap.point(1, 1, 1).error
    assert_refused(snap.get("/v2/start_session/no-such-model"), 404)
    assert_refused(snap.get("/no/such/route"), 404)
    assert_refused(snap.get("/status/"), 404)


def test_a_wrong_method_is_refused_as_such(snap: ItkSnap) -> None:
    """The answer is 405 and names the method that is right (RFC 9110, section 15.5.6)."""
    for path in ("/status", "/v2/models", "/v2/start_session/region", f"/v2/process_point_interaction/{snap.session}"):
        answer = snap.post(path, b"", b"")
        assert_refused(answer, 405)
        assert "GET" in answer.headers["allow"]
    for path in (f"/upload_raw/{snap.session}", f"/v2/process_lasso_interaction/{snap.session}"):
        answer = snap.get(path)
        assert_refused(answer, 405)
        assert answer.headers["allow"] == "POST"


def test_bad_uploads_leave_the_session_as_it_was(opened: ItkSnap) -> None:
    """Each is refused with its status, and the old image gives the same mask as before."""
    before = opened.mask(opened.point(15, 20, 25))
    path, good = f"/upload_raw/{opened.session}", described(IMAGE.shape)
    raw = IMAGE.tobytes()
    for file, metadata, status in [
        (b"not gzip", good, 400),
        (packed(IMAGE)[:-20], good, 400),
        (gzip.compress(raw[:-4]), good, 400),
        (gzip.compress(raw + b"1234"), good, 413),
        (packed(IMAGE), b"{not json", 400),
        (packed(IMAGE), described(IMAGE.shape, dimensions=[-1, 40, 30]), 400),
        (packed(IMAGE), described(IMAGE.shape, dimensions=[1 << 40, 1, 1]), 400),
        (packed(IMAGE), described(IMAGE.shape, dimensions=[60000, 60000, 60000]), 413),
        (packed(IMAGE), described(IMAGE.shape, components_per_pixel=2), 400),
        (packed(IMAGE), None, 400),
        (None, good, 400),
    ]:
        assert_refused(opened.post(path, file, metadata), status)
    assert_refused(opened._perform(path, ["Content-Type: text/plain"], [("a", b"b", None, None)]), 400)
    opened.get(f"/reset_interactions/{opened.session}")
    np.testing.assert_array_equal(opened.mask(opened.point(15, 20, 25)), before)


def test_bad_prompts_change_nothing(opened: ItkSnap) -> None:
    """Points outside, empty drawings, drawings of another size and bad queries are refused without effect."""
    before = opened.mask(opened.point(15, 20, 25))
    session = opened.session
    for z, y, x in [(30, 20, 25), (15, -1, 25), (15, 20, 50), (10**9, 0, 0)]:
        assert_refused(opened.point(z, y, x), 400)
    for query in (
        "",
        "point=1&point=2",
        "point=1&point=2&point=x",
        "point=1&point=2&point=3&point=4",
        "x=1&y=2",
        "point=1&point=2&point=3&foreground=maybe",
        "point=99999999999999999999&point=0&point=0",
    ):
        assert_refused(opened.get(f"/v2/process_point_interaction/{session}?{query}"), 400)
    for kind in ("scribble", "lasso"):
        assert_refused(opened.draw(kind, np.zeros(TRUTH.shape, bool)), 400)
        assert_refused(opened.draw(kind, np.ones((30, 40, 49), bool)), 400)
        assert_refused(opened.draw(kind, np.ones((40, 30, 50), bool)), 400)
    opened.get(f"/reset_interactions/{session}")
    np.testing.assert_array_equal(opened.mask(opened.point(15, 20, 25)), before)


def test_a_prompt_before_an_image_is_a_conflict(snap: ItkSnap) -> None:
    """Every prompt is refused with 409 and says what to do."""
    for answer in (snap.point(1, 1, 1), snap.draw("scribble", TRUTH), snap.draw("lasso", TRUTH)):
        assert_refused(answer, 409)
    assert snap.get(f"/reset_interactions/{snap.session}").status == 200


def test_a_body_is_asked_for_with_100_continue(live: LiveServer, snap: ItkSnap) -> None:
    """libcurl announces a body over 1 MB with `Expect: 100-continue`, and gets `100 Continue` before it sends it."""
    body, content_type = form([("file", packed(IMAGE)), ("metadata", described(IMAGE.shape))])
    head = f"POST /upload_raw/{snap.session} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    head += f"Content-Length: {len(body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", live.port), timeout=60) as sock, sock.makefile("rb") as answer:
        sock.sendall(head.encode())
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answer.readline() == b"\r\n"
        sock.sendall(body)
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


def test_a_large_upload_by_libcurl(snap: ItkSnap) -> None:
    """An upload over 1 MB is accepted, with `Expect: 100-continue` as libcurl sends it."""
    volume = np.random.default_rng(0).normal(size=(64, 128, 128)).astype(np.float32)
    file = packed(volume)
    assert len(file) > 1 << 20
    answer = snap.post(f"/upload_raw/{snap.session}", file, described(volume.shape), ("Expect: 100-continue",))
    assert answer.status == 200


def memory_of_this_process() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmHWM")


def test_a_decompression_bomb_is_refused_and_takes_little_memory(snap: ItkSnap) -> None:
    """A megabyte that inflates to a gigabyte is refused with 413, and the process hardly grows."""
    bomb = gzip.compress(b"\0" * (1 << 30), 9)
    assert len(bomb) < 1 << 20 < 2 * len(bomb)
    assert snap.upload(IMAGE).status == 200
    before = memory_of_this_process()
    assert_refused(snap.post(f"/upload_raw/{snap.session}", bomb, described(IMAGE.shape)), 413)
    assert_refused(snap.post(f"/process_scribble_interaction/{snap.session}", bomb, described(IMAGE.shape)), 413)
    assert memory_of_this_process() - before < 128 << 20


@pytest.mark.parametrize(("failure", "status"), [(RuntimeError("CUDA"), 500), (MemoryError(), 503)])
def test_an_engine_that_fails_leaves_the_session_usable(failure: Exception, status: int) -> None:
    """The failure is answered with a sentence, the old image stays, and the next click works."""
    engine = FailingEngine()
    with serving(engine) as server:
        snap = ItkSnap(server.port)
        snap.start("failing")
        assert snap.upload(IMAGE).status == 200
        first = snap.mask(snap.point(1, 1, 1))
        engine.failure = failure
        assert_refused(snap.point(2, 2, 2), status)
        assert_refused(snap.upload(np.zeros((3, 3, 3), np.float32)), status)
        engine.failure = None
        snap.shape = IMAGE.shape
        again = snap.mask(snap.point(1, 1, 1))
        np.testing.assert_array_equal(again, first)


def test_images_beyond_the_budget_put_the_oldest_sessions_to_sleep() -> None:
    """Without memory for an image, the session unused for longest is put to sleep; its next click wakes it."""
    image = IMAGE
    with serving(budget=5 * image.size * 2) as server:
        clients = [ItkSnap(server.port) for _ in range(3)]
        masks = []
        for client in clients:
            client.start()
            assert client.upload(image).status == 200
            masks.append(client.mask(client.point(15, 20, 25)))
        for client, before in zip(clients, masks, strict=True):
            after = client.mask(client.point(15, 20, 26))
            assert dice(after, before) > 0.9
        assert_refused(clients[2].upload(np.zeros((90, 100, 100), np.float32)), 413)
        assert clients[2].point(1, 1, 1).status == 200


def test_sessions_used_at_once_do_not_mix(live: LiveServer) -> None:
    """Four clients that click at the same time each get the mask that they get alone."""
    rng = np.random.default_rng(5)
    truths = [ellipsoid((30, 40, 50), tuple(rng.uniform(13, 17, 3)), tuple(rng.uniform(6, 10, 3))) for _ in range(4)]
    images = [noisy(truth, 5, rng) for truth in truths]
    masks: dict[tuple[int, int], Any] = {}

    def work(number: int, round_: int) -> None:
        client = ItkSnap(live.port)
        client.start()
        client.upload(images[number])
        masks[number, round_] = client.mask(client.point(15, 15, 15))

    for number in range(4):
        work(number, 0)
    threads = [threading.Thread(target=work, args=(number, 1)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        np.testing.assert_array_equal(masks[number, 0], masks[number, 1])


def test_the_log_has_routes_sizes_and_times_only(opened: ItkSnap, caplog: pytest.LogCaptureFixture) -> None:
    """A request's log line has no session id, no file name and no query."""
    with caplog.at_level("INFO", "dls.server"):
        opened.upload(IMAGE)
        opened.point(15, 20, 25)
        until(lambda: "process_point_interaction" in caplog.text)  # logged after the answer was sent
    text = caplog.text
    lines = [message for message in caplog.messages if message.startswith(("GET", "POST"))]
    assert "upload_raw" in text and "process_point_interaction" in text
    assert opened.session not in text and "nii" not in text and "point=" not in text
    assert all(re.fullmatch(r"(GET|POST) \w+: 200, \d+ bytes in \d+\.\d{3} s", line) for line in lines), lines
