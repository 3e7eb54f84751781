"""SSH agents for the labs: a real one with keys of ours, and one that never answers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.askpass import Askpass
from tests.support.openssh import make_key, running
from tests.support.processes import until


@contextlib.contextmanager
def agent(
    folder: Path,
    *keys: Path,
    confirm: bool = False,
    options: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """Run a real ssh-agent with these keys, in this order; yields its socket.

    With `confirm`, the agent asks its person before each signature (`ssh-add -c`), and the person declines.
    The options are further ones of ssh-agent, and `env` is added to its environment and to that of `ssh-add`.
    """
    path = folder / "agent.sock"
    # In the foreground; what it asks is asked through a program, and this one says no.
    refusal = {"SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    with running(["ssh-agent", "-D", *options, "-a", str(path)], {**refusal, **(env or {})}):
        until(lambda: is_listening(path))
        for key in keys:
            add = ["ssh-add", "-q", *(["-c"] if confirm else []), str(key)]
            environment = {**os.environ, **(env or {}), "SSH_AUTH_SOCK": str(path)}
            subprocess.run(add, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
        yield path


def is_listening(path: Path) -> bool:
    """Whether something accepts connections at a Unix socket: its file is there a little earlier."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@contextlib.contextmanager
def silent_agent(folder: Path) -> Iterator[Path]:
    """Listen as an agent does that accepts every connection and never answers; yields its socket."""
    path = folder / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)  # the kernel accepts; nobody reads
        yield path


def other_keys(folder: Path, count: int) -> list[Path]:
    """Make keys that no server of ours accepts."""
    return [make_key(folder / f"other{number}") for number in range(count)]


def add_card(socket: Path, module: str, pin: str) -> None:
    """Give a smart card and its PIN to the agent at the socket."""
    with tempfile.TemporaryDirectory(prefix="dls-askpass-") as folder:
        asked = Askpass(Path(folder), {"PIN": pin, "assphrase": pin})
        environment = {**os.environ, **asked.env, "SSH_AUTH_SOCK": str(socket)}
        command = ["ssh-add", "-q", "-s", module]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
