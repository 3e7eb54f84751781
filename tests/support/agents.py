"""SSH agents for the labs: a real one with keys of ours, and one that never answers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.openssh import make_key, running
from tests.support.processes import until


@contextlib.contextmanager
def agent(folder: Path, *keys: Path, confirm: bool = False) -> Iterator[Path]:
    """Run a real ssh-agent with these keys, in this order; yields its socket.

    With `confirm`, the agent asks its person before each signature (`ssh-add -c`), and the person declines.
    """
    path = folder / "agent.sock"
    # In the foreground; what it asks is asked through a program, and this one says no.
    refusal = {"SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    with running(["ssh-agent", "-D", "-a", str(path)], refusal):
        until(path.exists)
        for key in keys:
            add = ["ssh-add", "-q", *(["-c"] if confirm else []), str(key)]
            environment = {**os.environ, "SSH_AUTH_SOCK": str(path)}
            subprocess.run(add, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
        yield path


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
