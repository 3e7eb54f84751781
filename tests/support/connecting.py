"""`dls connect` for the tests: what it says, and what it leaves."""

from __future__ import annotations

import sys

import dls
from dls.demo import sshd
from dls.remote.progress import Silent
from dls.remote.session import connect
from tests.support.processes import free_port


class RecordingReporter(Silent):
    """Remembers the phases and notes."""

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


def connected(host: sshd.Server, remote_dir: str, **options: object) -> tuple[dls.Session, RecordingReporter]:
    story = RecordingReporter()
    options.setdefault("local_port", free_port())
    made = connect("dls-demo", ssh_config=host.config, remote_dir=remote_dir, reporter=story, **options)  # type: ignore[arg-type]
    return made, story


def command(host: sshd.Server, remote_dir: str, verb: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "dls", verb, "-F", str(host.config), "--remote-dir", remote_dir, *more, "dls-demo"]
