"""Uploads through the proxy over channels that the test slows down and cuts: what crosses them, and what comes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dls.contract import IMAGES_PATH, PARTS_PATH
from dls.remote.tunnel.body_memory import BodyMemory
from dls.server.sessions.copies import COPIES_FOLDER
from dls.server.sessions.incoming import PART_PREFIX
from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import ItkSnap, described, packed
from tests.support.processes import until
from tests.support.proxied_server import ProxiedServer, proxied

IMAGE = np.random.default_rng(0).normal(size=(40, 160, 160)).astype(np.float32)
IMAGE[15:25, 70:90, 70:90] += 20
FILE = packed(IMAGE)
SLOW = 1.2e6
"""Bytes a second with which the rest of the image takes so long that the host is asked."""


@pytest.fixture
def home(short_folder: Path) -> Path:
    return short_folder / "own" / "home"


@pytest.fixture
def server(short_folder: Path, home: Path) -> Iterator[LiveServer]:
    with serving(folder=short_folder, socket=str(short_folder / "s")) as live:
        yield live


@pytest.fixture
def proxy(server: LiveServer) -> Iterator[ProxiedServer]:
    with proxied(server.socket) as running:
        yield running


def copies(home: Path) -> list[Path]:
    folder = home / COPIES_FOLDER
    return list(folder.iterdir()) if folder.is_dir() else []


def sent(proxy: ProxiedServer, begins: bytes) -> list[int]:
    """Return the bytes that each request sent whose first line begins so."""
    return [channel.sent_bytes for channel in proxy.endpoint.channels if channel.sent.startswith(begins)]


def upload(proxy: ProxiedServer) -> ItkSnap:
    """Upload the image by a new session, which is returned."""
    snap = ItkSnap(proxy.port)
    snap.start()
    answer = snap.upload(IMAGE)
    assert answer.status == 200 and answer.json == {"message": "NIFTI file uploaded and stored in GPU memory"}
    return snap


def click(snap: ItkSnap) -> np.ndarray:
    return snap.mask(snap.point(20, 80, 80))


@pytest.fixture
def expected(tmp_path: Path) -> np.ndarray:
    """The mask that a server of its own gives for the image."""
    with serving(folder=tmp_path) as live:
        snap = ItkSnap(live.port)
        snap.start()
        snap.upload(IMAGE)
        return click(snap)


def upload_twice(proxy: ProxiedServer, home: Path) -> tuple[ItkSnap, ItkSnap]:
    """Upload the image, and again by another session over a slow link."""
    first = upload(proxy)
    until(lambda: copies(home))
    proxy.endpoint.channels.clear()
    proxy.endpoint.rate = SLOW
    return first, upload(proxy)


def test_an_image_that_the_host_has_is_not_sent(proxy: ProxiedServer, home: Path, expected: np.ndarray) -> None:
    """Another session gets the same image and mask; its file is the first one's, which is removed with the last."""
    first, second = upload_twice(proxy, home)
    given_up, instead = sent(proxy, b"POST /upload_raw/")
    assert given_up < len(FILE) / 4 and instead < 2000
    until(lambda: proxy.uploads[-1].is_over)
    assert proxy.uploads[-1].state == "done" and proxy.uploads[-1].saved == proxy.uploads[-1].total
    np.testing.assert_array_equal(click(second), expected)
    [copy] = copies(home)
    assert copy.stat().st_nlink == 3 and copy.stat().st_mode & 0o777 == 0o600
    first.get(f"/end_session/{first.session}")
    assert copies(home) == [copy]
    np.testing.assert_array_equal(click(second), expected)
    second.get(f"/end_session/{second.session}")
    assert copies(home) == []


def test_another_image_of_the_session_removes_the_copy(proxy: ProxiedServer, home: Path) -> None:
    """The copy belongs to the sessions that have the image now."""
    snap = upload(proxy)
    until(lambda: copies(home))
    [copy] = copies(home)
    assert snap.upload(IMAGE + 1).status == 200
    until(lambda: copies(home) and copy not in copies(home))


@pytest.mark.parametrize("is_short", [False, True])
def test_a_damaged_copy_is_no_image(proxy: ProxiedServer, home: Path, expected: np.ndarray, *, is_short: bool) -> None:
    """A copy whose bytes have changed is not taken: the image is sent, and becomes the copy."""
    upload(proxy)
    until(lambda: copies(home))
    proxy.endpoint.channels.clear()
    [copy] = copies(home)
    with copy.open("r+b") as file:
        if is_short:
            file.truncate(copy.stat().st_size - 1)
        else:
            file.seek(len(FILE) // 2)
            file.write(b"damaged")
    proxy.endpoint.rate = SLOW
    snap = upload(proxy)
    assert max(sent(proxy, b"POST /upload_raw/")) > len(FILE)
    np.testing.assert_array_equal(click(snap), expected)

    def is_whole() -> bool:
        with contextlib.suppress(FileNotFoundError):  # it is removed, and then there again
            return [copy.read_bytes() for copy in copies(home)] == [FILE]
        return False

    until(is_whole)


def test_a_foreign_file_among_the_copies_is_no_image(proxy: ProxiedServer, home: Path, expected: np.ndarray) -> None:
    """A file that only has the name of a copy, or a link to one elsewhere, is not taken."""
    upload(proxy)
    until(lambda: copies(home))
    [copy] = copies(home)
    copy.unlink()
    elsewhere = home.parent / "elsewhere"
    elsewhere.write_bytes(FILE)
    copy.symlink_to(elsewhere)
    proxy.endpoint.rate = SLOW
    np.testing.assert_array_equal(click(upload(proxy)), expected)
    assert max(sent(proxy, b"POST /upload_raw/")) > len(FILE)
    until(lambda: not copy.is_symlink())
    assert elsewhere.read_bytes() == FILE


def test_a_refusal_is_the_same(proxy: ProxiedServer, home: Path) -> None:
    """Metadata that does not fit the image is refused with the sentence that an image which is sent gets."""
    first = upload(proxy)
    until(lambda: copies(home))
    answers = []
    for rate in (None, SLOW):
        proxy.endpoint.rate = rate
        answers.append(first.post(f"/upload_raw/{first.session}", FILE, described((41, 160, 160))))
    assert [answer.status for answer in answers] == [400, 400] and answers[0].body == answers[1].body
    [copy] = copies(home)
    assert copy.read_bytes() == FILE


def test_two_uploads_of_an_image_at_once(proxy: ProxiedServer, home: Path, expected: np.ndarray) -> None:
    """Both are sent, both sessions work, and the image is on the disk once."""
    snaps: list[ItkSnap] = []
    threads = [threading.Thread(target=lambda: snaps.append(upload(proxy))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: copies(home) and copies(home)[0].stat().st_nlink == 3)
    for snap in snaps:
        np.testing.assert_array_equal(click(snap), expected)
    assert len(copies(home)) == 1


def test_the_answer_to_an_upload_that_was_not_sent_is_lost(
    proxy: ProxiedServer, home: Path, expected: np.ndarray
) -> None:
    """It is asked for again, and the image is not sent then either."""
    upload(proxy)
    until(lambda: copies(home))
    proxy.endpoint.rate = SLOW
    proxy.endpoint.channels.clear()
    proxy.endpoint.cuts = [None, None, None, 20]  # start_session, upload, question, upload without the image
    np.testing.assert_array_equal(click(upload(proxy)), expected)
    assert sum(sent(proxy, b"POST /upload_raw/")) < len(FILE) / 4
    assert len(sent(proxy, b"POST /upload_raw/")) == 3


def test_an_upload_that_was_cut_goes_on(proxy: ProxiedServer, home: Path, expected: np.ndarray) -> None:
    """Each byte crosses once, whatever the number of cuts; nothing is left of the parts."""
    proxy.endpoint.cut_sending = [None, 2_000_000, None, None, 1_500_000]
    snap = upload(proxy)
    posts = sent(proxy, b"POST /upload_raw/")
    assert len(posts) == 3 and sum(posts) < len(FILE) + 5000
    assert [each.state for each in proxy.uploads].count("resumed") == 2
    np.testing.assert_array_equal(click(snap), expected)
    until(lambda: copies(home))  # what was put together is what was sent
    [image] = (home / snap.session).glob("image-*")
    assert image.read_bytes() == FILE and not list((home / snap.session).glob(f"{PART_PREFIX}*"))


def test_parts_that_do_not_fit_are_not_gone_on_with(proxy: ProxiedServer, home: Path, expected: np.ndarray) -> None:
    """What the host holds is compared with what was sent before a byte is left out."""
    proxy.endpoint.cut_sending = [None, 2_000_000]
    proxy.endpoint.is_up = True
    opened = proxy.endpoint.open

    def damage() -> None:
        for part in home.glob(f"*/{PART_PREFIX}*"):
            with part.open("r+b") as file:
                file.seek(1000)
                file.write(b"damaged")

    class Damaging(type(proxy.endpoint)):  # type: ignore[misc]
        """Damages the part each time that a channel is opened: after the cut, before the question."""

        def open(self) -> object:
            damage()
            return opened()

    proxy.endpoint.__class__ = Damaging
    np.testing.assert_array_equal(click(upload(proxy)), expected)
    assert max(sent(proxy, b"POST /upload_raw/")) > len(FILE)


def test_a_body_that_is_small_or_chunked_is_sent_as_before(proxy: ProxiedServer) -> None:
    """Nothing is asked about it."""
    snap = ItkSnap(proxy.port)
    snap.start()
    small = np.zeros((3, 4, 5), np.float32)
    assert snap.upload(small).status == 200
    chunked = snap.post(
        f"/upload_raw/{snap.session}", FILE, described(IMAGE.shape), ("Transfer-Encoding: chunked", "Content-Length:")
    )
    assert chunked.status == 200
    assert not sent(proxy, b"GET /dls/") and proxy.uploads == []


def test_an_image_that_is_too_large_to_be_kept_here(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent as it comes, without a question; how far it is, is told all the same."""
    monkeypatch.setattr("dls.remote.tunnel.proxy.BodyMemory", lambda: BodyMemory(1 << 20))
    with proxied(server.socket) as proxy:
        proxy.endpoint.rate = SLOW
        upload(proxy)
        until(lambda: proxy.uploads and proxy.uploads[-1].is_over)
        assert not sent(proxy, b"GET /dls/")
        assert {each.state for each in proxy.uploads} >= {"sending", "done"}
        assert proxy.uploads[-1].sent == proxy.uploads[-1].total > len(FILE)


def test_a_client_that_leaves_ends_its_upload(proxy: ProxiedServer) -> None:
    """The end is reported as one that failed, and nothing is sent again."""
    snap = ItkSnap(proxy.port)
    snap.start()
    with proxy.connect() as sock:
        sock.sendall(
            b"POST /upload_raw/%b HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" % snap.session.encode()
            + bytes(2_000_000)
        )
    until(lambda: proxy.uploads and proxy.uploads[-1].is_over)
    assert proxy.uploads[-1].state == "failed" and len(sent(proxy, b"POST")) == 1


def test_headers_of_ours_do_not_pass_the_local_port(proxy: ProxiedServer, home: Path) -> None:
    """A client of the local port can't have the host take a copy: it might be another user of this computer."""
    upload(proxy)
    until(lambda: copies(home))
    [copy] = copies(home)
    snap = ItkSnap(proxy.port)
    snap.start()
    path = f"/upload_raw/{snap.session}"
    for header in (f"X-Dls-Image: {copy.name}", "X-Dls-Offset: 5"):
        answer = snap.post(path, None, described(IMAGE.shape), (header,))
        assert answer.status == 400 and "no part named 'file'" in answer.error


def test_only_the_servers_user_may_ask(proxy: ProxiedServer, server: LiveServer, home: Path) -> None:
    """Everybody else gets what an unknown address gets, and headers of ours mean nothing."""
    upload(proxy)
    until(lambda: copies(home))
    [copy] = copies(home)
    stranger = ItkSnap(server.port)
    stranger.start()
    unknown = stranger.get("/dls/nothing")
    for path in (f"{IMAGES_PATH}/{copy.name}", f"{PARTS_PATH}/{stranger.session}/0123456789abcdef"):
        answer = stranger.get(path)
        assert (answer.status, answer.body) == (404, unknown.body)
    answer = stranger.post(
        f"/upload_raw/{stranger.session}", None, described(IMAGE.shape), (f"X-Dls-Image: {copy.name}",)
    )
    assert answer.status == 400 and "no part named 'file'" in answer.error


def test_nothing_is_taken_that_the_host_does_not_hold(proxy: ProxiedServer, server: LiveServer, home: Path) -> None:
    """A claim without the file is refused, as are names that are none, and a part at another length."""
    upload(proxy)
    until(lambda: copies(home))
    snap = ItkSnap(proxy.port)
    snap.start()
    path, metadata = f"/upload_raw/{snap.session}", described(IMAGE.shape)
    os.link(copies(home)[0], home / COPIES_FOLDER / ("0" * 64 + f"-{len(FILE)}"))  # another one's contents
    for header, status in (
        (f"X-Dls-Image: {'a' * 64}-5", 412),
        (f"X-Dls-Image: {'0' * 64}-{len(FILE)}", 412),
        ("X-Dls-Image: ../../etc/passwd", 400),
        ("X-Dls-Offset: 5", 412),
        ("X-Dls-Offset: -5", 400),
    ):
        answer = over_socket(server, path, metadata, (header, "X-Dls-Request: 0123456789abcdef"))
        assert answer == status, header
    assert not list((home / snap.session).glob("image-*"))


def over_socket(server: LiveServer, path: str, metadata: bytes, headers: tuple[str, ...]) -> int:
    """Send an upload without an image to the server's own socket, and return the status."""
    import http.client
    import socket

    boundary = "----x"
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'.encode()
        + metadata
        + f"\r\n--{boundary}--\r\n".encode()
    )
    client = http.client.HTTPConnection("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    client.sock.connect(server.socket)
    fields = dict(header.split(": ", 1) for header in headers)
    client.request("POST", path, body, {**fields, "Content-Type": f"multipart/form-data; boundary={boundary}"})
    status = client.getresponse().status
    client.close()
    return status
