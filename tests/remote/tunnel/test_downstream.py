"""How requests are read from the client: several on one connection, bodies in chunks, clients that disconnect."""

from __future__ import annotations

import gc
import socket
import threading

import numpy as np
import pytest

from dls.remote.tunnel import downstream
from tests.support.itksnap import described, form, packed
from tests.support.processes import until
from tests.support.proxied_server import ProxiedServer


def receive_all(sock: socket.socket) -> bytes:
    """Receive until the other side closes the connection."""
    received = b""
    while data := sock.recv(4096):
        received += data
    return received


def test_several_requests_on_one_connection(proxied_server: ProxiedServer) -> None:
    """Requests that are sent at once are answered in order, with sized, chunked and empty bodies."""
    requests = (
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
        b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\n\r\n"
        b"GET /v2/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    with proxied_server.connect() as sock:
        sock.sendall(requests)
        received = receive_all(sock)
    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"405", b"405", b"200", b"200"], received
    first, second = proxied_server.endpoint.channels[:2]
    assert b"hello" in first.sent and b"3\r\nabc\r\n0\r\n\r\n" in second.sent


def test_a_large_upload_in_chunks_is_the_same_upload(proxied_server: ProxiedServer) -> None:
    """A chunked body is kept and sent again after a cut, as a sized one is."""
    volume = np.random.default_rng(0).normal(size=(20, 128, 128)).astype(np.float32)
    snap = proxied_server.snap
    snap.start()
    snap.shape = volume.shape
    body, kind = form([("file", packed(volume)), ("metadata", described(volume.shape))])
    head = (
        f"POST /upload_raw/{snap.session} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    assert len(body) > downstream.LARGE_BODY
    proxied_server.endpoint.cuts = [0]
    with proxied_server.connect() as sock:
        sock.sendall(head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert receive_all(sock).startswith(b"HTTP/1.1 200")
    assert snap.mask(snap.point(1, 1, 1))[1, 1, 1] == 1


@pytest.mark.parametrize("size", [1000, downstream.LARGE_BODY + 1000])
def test_a_client_that_disconnects_in_the_middle_leaves_nothing_behind(
    proxied_server: ProxiedServer, size: int
) -> None:
    """A short body is not begun to be sent; of a large one the thread that reads it ends, and the channel is closed."""
    channels = proxied_server.endpoint.channels
    with proxied_server.connect() as sock:
        sock.sendall(b"POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nhello" % size)
        if size < downstream.LARGE_BODY:
            sock.shutdown(socket.SHUT_WR)
            assert receive_all(sock) == b""
            assert not channels
            return
        until(lambda: bool(channels))
    until(lambda: channels[0].is_closed)
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "dls-body"])


def test_a_body_is_freed_with_its_request(proxied_server: ProxiedServer) -> None:
    """No garbage collection is needed: the body is as large as an image, and an idle client collects none for hours."""
    volume = np.random.default_rng(0).normal(size=(20, 128, 128)).astype(np.float32)
    proxied_server.snap.start()
    gc.collect()
    gc.disable()
    try:
        assert proxied_server.snap.upload(volume).status == 200
        until(lambda: not any(type(each) is downstream.SizedBody for each in gc.get_objects()))
    finally:
        gc.enable()


def test_a_body_that_is_too_large_to_keep_is_sent_once(
    proxied_server: ProxiedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is streamed to the server, and a cut ends in a 502."""
    monkeypatch.setattr(downstream, "MAX_REPLAY_BODY", 10_000)
    volume = np.random.default_rng(0).normal(size=(20, 128, 128)).astype(np.float32)
    proxied_server.snap.start()
    assert proxied_server.snap.upload(volume).status == 200
    proxied_server.endpoint.cuts = [0]
    assert proxied_server.snap.upload(volume).status == 502


def test_what_is_not_http_is_refused(proxied_server: ProxiedServer) -> None:
    """The answer is a 400, and the connection ends."""
    with proxied_server.connect() as sock:
        sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        assert receive_all(sock).startswith(b"HTTP/1.1 400")
