"""How often the client waits for the host, which is what a connection over a long way costs. Counted, not timed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import h11
import numpy as np
import paramiko
import pytest

from dls.demo import sshd
from dls.remote.tunnel.downstream import CHUNK, LARGE
from tests.support.connecting import connected
from tests.support.itksnap import ItkSnap
from tests.support.processes import until

OPEN_AHEAD = "dls-ahead"
"""The thread that opens channels nobody waits for yet."""


@pytest.fixture
def opening(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """The channels that are opened, by kind and thread; each costs a round trip, and a command one more."""
    found: list[tuple[str, str]] = []
    open_channel = paramiko.Transport.open_channel

    def counted(self: paramiko.Transport, kind: str, *arguments: Any, **options: Any) -> paramiko.Channel:
        found.append((kind, threading.current_thread().name))
        return open_channel(self, kind, *arguments, **options)

    monkeypatch.setattr(paramiko.Transport, "open_channel", counted)
    yield found


def test_a_warm_connect_asks_twice(host: sshd.Server, clean: str, opening: list[tuple[str, str]]) -> None:
    """One script looks at the host, one channel makes sure that the server is the one that its state says."""
    connected(host, clean)[0].close()
    opening.clear()
    with connected(host, clean)[0]:
        waited_for = [kind for kind, thread in list(opening) if thread == "MainThread"]
    assert waited_for == ["session", "direct-streamlocal@openssh.com"]


def test_a_request_opens_no_channel(host: sshd.Server, clean: str, opening: list[tuple[str, str]]) -> None:
    """It takes one that was opened before, so it costs one round trip; another one is opened meanwhile."""
    with connected(host, clean)[0] as made:
        snap = ItkSnap(made.port)
        snap.start()
        for number in range(5):
            until(lambda: len(made._link._ahead) == 3)
            opening.clear()
            assert snap.get("/v2/models").status == 200
            until(lambda: len(made._link._ahead) == 3)
            assert [thread for _, thread in opening] == [OPEN_AHEAD], number


def test_of_an_upload_only_the_head_is_looked_at(
    host: sshd.Server, clean: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes through h11 is copied three times; of a body that is what came with the head."""
    parsed: list[int] = []
    receive = h11.Connection.receive_data

    def counted(self: h11.Connection, data: bytes) -> None:
        parsed.append(len(data))
        receive(self, data)

    volume = np.random.default_rng(0).normal(size=(32, 128, 128)).astype(np.float32)
    with connected(host, clean)[0] as made:
        snap = ItkSnap(made.port)
        snap.start()
        monkeypatch.setattr(h11.Connection, "receive_data", counted)
        assert snap.upload(volume).status == 200
        assert volume.nbytes > LARGE + CHUNK and 0 < sum(parsed) < CHUNK + 10_000
