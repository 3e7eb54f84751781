"""What the supervisor does when the wall clock jumps, which is how it notices that the computer slept."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

import dls
from dls.demo import sshd
from dls.remote.tunnel import supervisor
from dls.remote.tunnel.supervisor import Clock
from tests.support.connecting import connected
from tests.support.itksnap import ItkSnap
from tests.support.processes import until


class WallClock:
    """A clock that the test can set, and that counts how often it is read."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.reads = 0

    def read(self) -> float:
        self.reads += 1
        return time.time() + self.offset

    def wait_for_reads(self, number: int) -> None:
        enough = self.reads + number
        until(lambda: self.reads >= enough)


@pytest.fixture
def paused(host: sshd.Server, remote_dir: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dls.Session]:
    """A session whose supervisor has found everything healthy and now pauses until it notices a sleep."""
    monkeypatch.setattr(supervisor, "CHECK_SECONDS", 3600.0)
    session, _ = connected(host, remote_dir)
    with session:
        yield session


def replace_clock(session: dls.Session) -> WallClock:
    """Give the supervisor another wall clock; returns when it reads that one, so that it is between two checks."""
    wall = WallClock()
    session._supervisor._clock = Clock(wall=wall.read)
    wall.wait_for_reads(2)
    return wall


def replace_both_clocks(session: dls.Session) -> WallClock:
    """Give the supervisor clocks as those of Windows, which both go on while the computer sleeps."""
    wall = replace_clock(session)
    session._supervisor._clock = Clock(lambda: time.monotonic() + wall.offset, wall.read)
    wall.wait_for_reads(2)
    return wall


@pytest.mark.slow
@pytest.mark.parametrize("jump", [86400.0, -86400.0])
def test_a_clock_that_jumps_does_no_harm(paused: dls.Session, jump: float) -> None:
    """A jump forward looks like a sleep and leads to a check; link, server and session stay in both cases."""
    snap = ItkSnap(paused.port)
    snap.start()
    connection, pid = paused.connection, paused.state.pid
    wall = replace_clock(paused)
    last_check = paused._supervisor._last_check
    wall.offset = jump
    if jump > 0:
        until(lambda: paused._supervisor._last_check is not last_check)
    wall.wait_for_reads(3)
    assert (paused._supervisor._last_check is last_check) == (jump < 0)
    assert snap.get(f"/reset_interactions/{snap.session}").status == 200
    assert paused.is_up and paused.connection is connection and paused.state.pid == pid


@pytest.mark.parametrize("replace", [replace_clock, replace_both_clocks])
def test_after_a_sleep_the_link_is_checked_with_a_short_deadline(
    paused: dls.Session, monkeypatch: pytest.MonkeyPatch, replace: Callable[[dls.Session], WallClock]
) -> None:
    """The usual pause and the usual deadline are an hour here, so that only the one after a sleep finds the loss."""
    monkeypatch.setattr(supervisor, "LINK_DEADLINE", 3600.0)
    wall, first = replace(paused), paused.connection
    pids = processes_of_connection(paused)
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        wall.offset = 3500  # less than the pause, whose end would lead to a check as well
        until(lambda: paused.is_up and paused.connection is not first)
        assert ItkSnap(paused.port).start()
    finally:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def processes_of_connection(session: dls.Session) -> list[int]:
    """Return the processes of sshd that serve the session's connection: those that have its socket open."""
    sock = cast(socket.socket, session.connection.transport.sock)
    ends = [sock.getpeername()[1], sock.getsockname()[1]]
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(end.split(":")[1], 16) for end in fields[1:3]] == ends:
            found += holders_of(f"socket:[{fields[9]}]")
    assert found
    return found


def holders_of(file: str) -> list[int]:
    """Return the processes that have the file open; those that end meanwhile have nothing open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            links = list((folder / "fd").iterdir())
            for link in links:
                with contextlib.suppress(OSError):
                    if str(link.readlink()) == file:
                        found.append(int(folder.name))
    return found
