"""`dls connect` for the tests: what it says, and what it leaves."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import dls
from dls.demo import sshd
from dls.remote.progress import Silent
from dls.remote.session import connect


class Story(Silent):
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


def opened(host: sshd.Server, remote_dir: str, **options: object) -> tuple[dls.Session, Story]:
    story = Story()
    options.setdefault("local_port", free_port())
    made = connect("dls-demo", ssh_config=host.config, remote_dir=remote_dir, reporter=story, **options)  # type: ignore[arg-type]
    return made, story


def interruptible() -> None:
    """Undo what a shell does to a job in the background: it makes it ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(host: sshd.Server, remote_dir: str, verb: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "dls", verb, "-F", str(host.config), "--remote-dir", remote_dir, *more, "dls-demo"]
