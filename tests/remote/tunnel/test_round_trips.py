"""How often the client waits for the host, which is what a distant host costs. Counted, not timed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import h11
import numpy as np
import paramiko
import pytest

from dls.contract import UNKNOWN_SESSION
from dls.demo import sshd
from dls.remote.ssh.channel import Channel
from dls.remote.tunnel.channel_pool import POOL_SIZE, THREAD_NAME
from dls.remote.tunnel.downstream import LARGE_BODY, READ_SIZE
from tests.support.connecting import connected
from tests.support.itksnap import ItkSnap
from tests.support.processes import until

CHECK_THREAD = "dls-status"


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """Record the channels that are opened, by kind and thread; each costs a round trip, and a command one more."""
    found: list[tuple[str, str]] = []
    open_channel = paramiko.Transport.open_channel

    def counted(self: paramiko.Transport, kind: str, *arguments: Any, **options: Any) -> paramiko.Channel:
        found.append((kind, threading.current_thread().name))
        return open_channel(self, kind, *arguments, **options)

    monkeypatch.setattr(paramiko.Transport, "open_channel", counted)
    yield found


def test_a_warm_connect_opens_two_channels(host: sshd.Server, clean: str, opening: list[tuple[str, str]]) -> None:
    """One runs the script that examines the host; over the other the server is identified."""
    connected(host, clean)[0].close()
    opening.clear()
    with connected(host, clean)[0]:
        waited_for = [kind for kind, thread in list(opening) if thread == "MainThread"]
    assert waited_for == ["session", "direct-streamlocal@openssh.com"]


def test_a_request_opens_no_channel(host: sshd.Server, clean: str, opening: list[tuple[str, str]]) -> None:
    """It takes one from the pool, so that it costs one round trip; the pool opens another one meanwhile."""
    with connected(host, clean)[0] as session:
        snap = ItkSnap(session.port)
        snap.start()
        for number in range(5):
            until(lambda: len(session._link.pool) == POOL_SIZE)
            opening.clear()
            assert snap.get("/v2/models").status == 200
            until(lambda: len(session._link.pool) == POOL_SIZE)
            # The supervisor's regular check may come at any time, on its own thread.
            assert [thread for _, thread in opening if thread != CHECK_THREAD] == [THREAD_NAME], number


def test_only_the_head_of_an_upload_is_parsed(host: sshd.Server, clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """h11 copies what it parses three times; of the body it gets only what arrived together with the head."""
    parsed: list[int] = []
    receive = h11.Connection.receive_data

    def counted(self: h11.Connection, data: bytes) -> None:
        parsed.append(len(data))
        receive(self, data)

    volume = np.random.default_rng(0).normal(size=(32, 128, 128)).astype(np.float32)
    with connected(host, clean)[0] as session:
        snap = ItkSnap(session.port)
        snap.start()
        monkeypatch.setattr(h11.Connection, "receive_data", counted)
        assert snap.upload(volume).status == 200
        assert volume.nbytes > LARGE_BODY + READ_SIZE and 0 < sum(parsed) < READ_SIZE + 10_000


def test_an_image_for_a_session_that_is_gone_is_hardly_sent(
    host: sshd.Server, clean: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's 404 ends the upload, long before the image is over."""
    sent: list[int] = []
    send = Channel.sendall

    def counted(self: Channel, data: bytes | memoryview) -> None:
        sent.append(len(data))
        send(self, data)

    volume = np.random.default_rng(0).normal(size=(128, 256, 256)).astype(np.float32)
    with connected(host, clean)[0] as session:
        snap = ItkSnap(session.port)
        snap.session = "gone"
        monkeypatch.setattr(Channel, "sendall", counted)
        answer = snap.upload(volume)
        assert answer.status == 404 and answer.error == UNKNOWN_SESSION
        assert sum(sent) < volume.nbytes / 4
