"""Processes, ports and waiting."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PORTS = 20_000, 32_000
"""Below the ports that Linux gives to whoever asks for none in particular, from 32768 on."""
PORTS_OF_A_RUN = 500


def is_gone(pid: int) -> bool:
    """Whether the process has ended; where nothing reaps orphans, it stays as a zombie."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


@functools.cache
def _own_ports() -> Iterator[int]:
    """Return ports that the system gives to nobody by itself, from a block that no other run of the tests has."""
    for first in range(*PORTS, PORTS_OF_A_RUN):
        lock = os.open(f"/tmp/dls-ports-{os.getuid()}-{first}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends
        except BlockingIOError:
            os.close(lock)
        else:
            return itertools.cycle(range(first, first + PORTS_OF_A_RUN))
    raise AssertionError("every block of ports is taken")


def free_port() -> int:
    """Return a loopback port that nobody else takes before the caller does, however long that is."""
    for port in itertools.islice(_own_ports(), PORTS_OF_A_RUN):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port of this run is taken")


def interruptible() -> None:
    """Let a new process react to signals: shells make background jobs ignore Ctrl-C, and nohup makes them ignore
    SIGHUP."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


def wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens on the loopback port; fails when the process that should do it has ended.

    The kernel's table is read, not the port: a connection made for a look would stand in the server's log.
    """

    def is_listening() -> bool:
        assert process.poll() is None, f"{process.args!r} has ended with status {process.returncode}"
        return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()

    until(is_listening)
