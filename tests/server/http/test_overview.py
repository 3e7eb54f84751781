"""What the server says of itself to its own user: sessions and their pictures, the last requests, the log."""

from __future__ import annotations

import http.client
import io
import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dls.server.http.access import Policy
from dls.server.sessions.folders import Folders
from dls.server.sessions.store import SessionStore
from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import ItkSnap
from tests.support.processes import until
from tests.support.synthetic import ellipsoid, noisy

TRUTH = ellipsoid((30, 40, 50), (15, 20, 25), (8, 9, 10))


class OverSocket(http.client.HTTPConnection):
    """A connection to the server's Unix socket, as its own user makes."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(server: LiveServer, path: str = "/dls/overview") -> tuple[int, bytes]:
    connection = OverSocket(server.socket)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def overview(server: LiveServer) -> dict[str, Any]:
    status, body = ask(server)
    assert status == 200
    said: dict[str, Any] = json.loads(body)
    return said


def picture_of(server: LiveServer, session: dict[str, Any]) -> tuple[int, bytes]:
    return ask(server, f"/dls/pictures/{session['name']}/{session['version']}")


@pytest.fixture
def server(short_folder: Path) -> Iterator[LiveServer]:
    """A server with a Unix socket, on which its own user asks."""
    store = SessionStore(Folders(short_folder / "own" / "home")).open()
    with serving(socket=str(short_folder / "s"), store=store) as live:
        yield live


def begun(server: LiveServer) -> ItkSnap:
    snap = ItkSnap(server.port)
    snap.start()
    assert snap.upload(noisy(TRUTH, 5, np.random.default_rng(0))).status == 200
    return snap


def test_only_the_servers_own_user_is_told(server: LiveServer) -> None:
    """On the port these addresses do not exist, not even with a key of the page; with the secret they do."""
    for path in ("/dls/overview", "/dls/pictures/0123456789abcdef/1-1"):
        answer = ItkSnap(server.port).get(path, ("X-Dls-Page-Key: x",))
        assert answer.status == 404 and "nothing at that address" in answer.error
    assert ask(server)[0] == 200
    with serving(policy=Policy(secret="s3cret")) as live:
        assert ItkSnap(live.port).get("/dls/overview").status == 401
        assert ItkSnap(live.port, "snap:s3cret@127.0.0.1").get("/dls/overview").status == 200


def test_sessions_and_their_pictures(server: LiveServer) -> None:
    """A session appears with its image, and its picture changes with each prompt; the name of the picture is not the
    session's."""
    assert overview(server)["sessions"] == []
    snap = ItkSnap(server.port)
    snap.start()
    assert overview(server)["sessions"] == []  # there is nothing to see yet
    snap = begun(server)
    [before] = overview(server)["sessions"]
    assert before["id"] == snap.session[:8] and snap.session not in json.dumps(before)
    assert before["size"] == [50, 40, 30] and before["prompts"] == 0 and before["awake"] and before["has_picture"]
    status, plain = picture_of(server, before)
    assert status == 200 and not is_colored(plain)
    snap.mask(snap.point(15, 20, 25))
    [after] = overview(server)["sessions"]
    assert after["prompts"] == 1 and after["version"] != before["version"] and after["name"] == before["name"]
    assert is_colored(picture_of(server, after)[1])
    assert picture_of(server, before)[0] == 404  # that of another version is not there any more


def is_colored(png: bytes) -> bool:
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.array(image.convert("RGB")).astype(int)
    return bool((pixels[..., 0] - pixels[..., 2] > 20).any())


def test_sessions_asleep_are_shown_and_stay_asleep(short_folder: Path) -> None:
    """After a restart of the server its sessions are there with their pictures, and nothing of them is in memory."""
    store = SessionStore(Folders(short_folder / "own" / "home")).open()
    with serving(socket=str(short_folder / "s"), store=store) as live:
        snap = begun(live)
        snap.mask(snap.point(15, 20, 25))
        first = begun(live)
    again = SessionStore(Folders(short_folder / "own" / "home")).open()
    with serving(socket=str(short_folder / "t"), store=again) as live:
        shown = overview(live)["sessions"]
        assert [each["id"] for each in shown] == [first.session[:8], snap.session[:8]]  # the one used last first
        assert is_colored(picture_of(live, shown[1])[1]) and not is_colored(picture_of(live, shown[0])[1])
        assert not any(each["awake"] for each in overview(live)["sessions"])
        later = ItkSnap(live.port)
        later.session, later.shape = snap.session, TRUTH.shape
        assert later.mask(later.point(15, 20, 26)).any()
        assert [each["awake"] for each in overview(live)["sessions"]] == [True, False]


def test_damaged_sessions_are_left_out(server: LiveServer, short_folder: Path) -> None:
    """A manifest that makes no sense, and a picture whose files have gone, fail nothing."""
    snap = begun(server)
    [shown] = overview(server)["sessions"]
    folder = short_folder / "own" / "home" / snap.session
    [image] = folder.glob("image-*")
    image.unlink()
    assert picture_of(server, shown)[0] == 404
    (folder / "session").write_bytes(b"{}\n00000000\n")
    (short_folder / "own" / "home" / "a file").write_text("")
    assert overview(server)["sessions"] == []


def test_the_last_requests(server: LiveServer) -> None:
    """Each prompt, image and reset, the latest first, with its times; refused ones with their status; polls are not."""
    snap = begun(server)
    snap.mask(snap.point(15, 20, 25))
    stroke = np.zeros(TRUTH.shape, bool)
    stroke[15, 20, 20:30] = True
    snap.mask(snap.draw("scribble", stroke, foreground=False))
    assert snap.get("/status").status == 200
    assert snap.point(1000, 0, 0).status == 400
    assert snap.get(f"/v2/reset_interactions/{snap.session}").status == 200
    until(lambda: len(overview(server)["requests"]) == 5)  # a request is noted once it is answered
    said = overview(server)
    found = [(each["kind"], each["foreground"], each["status"]) for each in said["requests"]]
    assert found == [
        ("reset", None, 200),
        ("point", True, 400),
        ("scribble", False, 200),
        ("point", True, 200),
        ("image", None, 200),
    ]
    assert {each["session"] for each in said["requests"]} == {snap.session[:8]}
    for each in said["requests"]:
        assert (each["engine"] is not None) == (each["status"] == 200 and each["kind"] in ("point", "scribble"))
        assert each["engine"] is None or 0 < each["engine"] <= each["seconds"]
        assert abs(said["now"] - each["at"]) < 3600


def test_the_logs_last_lines(server: LiveServer) -> None:
    """What the server logs is there, without what asks for the overview itself, and at most so many lines."""
    log = logging.getLogger("dls.server")
    level = log.level
    log.setLevel(logging.INFO)
    try:
        for number in range(60):
            assert ItkSnap(server.port).get(f"/nothing-{number}").status == 404
        until(lambda: any("nothing-59" in line for line in overview(server)["log"]))
    finally:
        log.setLevel(level)
    lines = overview(server)["log"]
    assert len(lines) == 40 and not any("overview" in line for line in lines)


def test_a_folder_of_sessions_that_was_removed(server: LiveServer, short_folder: Path) -> None:
    """Then there are no sessions to show, and the server says the rest."""
    (short_folder / "own" / "home").rename(short_folder / "gone")
    assert overview(server)["sessions"] == [] and overview(server)["engine"]["name"] == "region"
