"""Processes, ports and waiting."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def is_gone(pid: int) -> bool:
    """Whether the process has ended; where nothing reaps orphans, it stays as a zombie."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
