"""Sessions for the tests, and the commands of the same host."""

from __future__ import annotations

import socket
import sys
from typing import Any

import dls
from dls.demo import sshd
from dls.remote.progress import Silent
from tests.support.processes import free_port

ANY_PORT = -1
"""Lets `connected` choose a free local port."""


class RecordingReporter(Silent):
    """Remembers the phases, the notes, and whether the link was open at each change."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.links: list[bool] = []

    def link(self, is_open: bool, text: str) -> None:
        self.links.append(is_open)

    def done(self, phase: str, text: str, seconds: float) -> None:
        self.phases.append(phase)

    def note(self, text: str) -> None:
        self.notes.append(text)


def connected(
    host: sshd.Server,
    remote_dir: str,
    *,
    local_port: int | None = ANY_PORT,
    local_secret: bool | str = False,
    **server: Any,
) -> tuple[dls.Session, RecordingReporter]:
    """Connect to the host with these options of the server; returns the session and what it reported."""
    reporter = RecordingReporter()
    session = dls.connect(
        "dls-demo",
        server=dls.ServerOptions(**server),
        login=dls.LoginOptions(ssh_config=host.config, remote_dir=remote_dir),
        local_port=free_port() if local_port == ANY_PORT else local_port,
        local_secret=local_secret,
        reporter=reporter,
    )
    return session, reporter


def cut(session: dls.Session) -> None:
    """Cut the session's SSH connection, as a network that goes away does."""
    session.connection.transport.sock.shutdown(socket.SHUT_RDWR)


def command(host: sshd.Server, remote_dir: str, verb: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "dls", verb, "-F", str(host.config), "--remote-dir", remote_dir, *more, "dls-demo"]
