"""Sessions for the tests, and the commands of the same host."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

import dls
from dls.demo import sshd
from dls.remote.progress import Silent
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port
from tests.support.synthetic import ellipsoid, noisy

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
    page: bool = True,
    login: Mapping[str, Any] | None = None,
    cluster: dls.ClusterOptions | None = None,
    **server: Any,
) -> tuple[dls.Session, RecordingReporter]:
    """Connect to the host with these options of the login and of the server; returns the session and its reporter.

    The engine is region, whatever GPU this machine has, unless another one is named.
    """
    reporter = RecordingReporter()
    session = dls.connect(
        "dls-demo",
        server=dls.ServerOptions(**{"engine": "region", **server}),
        login=dls.LoginOptions(ssh_config=host.config, remote_dir=remote_dir, **(login or {})),
        cluster=cluster or dls.ClusterOptions(),
        local_port=free_port() if local_port == ANY_PORT else local_port,
        local_secret=local_secret,
        page=page,
        reporter=reporter,
    )
    return session, reporter


def click_once(port: int) -> None:
    """Ask for the status, upload an image and click in it, as ITK-SNAP does, through a local port."""
    truth = ellipsoid((30, 40, 50), (15, 20, 25), (8, 9, 10))
    snap = ItkSnap(port)
    assert snap.get("/status").json["status"] == "ok"
    snap.start()
    assert snap.upload(noisy(truth, 5, np.random.default_rng(0))).status == 200
    assert snap.mask(snap.point(15, 20, 25))[15, 20, 25] == 1


def cut(session: dls.Session) -> None:
    """Cut the session's SSH connection, as a network that goes away does."""
    session.connection.transport.sock.shutdown(socket.SHUT_RDWR)


def command(host: sshd.Server, remote_dir: str, verb: str, *more: str) -> list[str]:
    engine = ["--engine", "region"] if verb == "connect" else []  # whatever GPU this machine has
    words = [sys.executable, "-m", "dls", verb, *engine, "-F", str(host.config), "--remote-dir", remote_dir]
    return [*words, *more, "dls-demo"]
