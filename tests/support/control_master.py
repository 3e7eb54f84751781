"""A running ControlMaster: an `ssh` that is logged in and shares its connection through a socket."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.openssh import Server, running
from tests.support.processes import until


@contextlib.contextmanager
def master(config: Path, server: Server, host: str = "lab") -> Iterator[Path]:
    """Log in at the server as the configuration says and share the connection at its ControlPath; yields the socket."""
    before = server.logins
    shown = subprocess.run(["ssh", "-F", str(config), "-G", host], capture_output=True, text=True, check=True).stdout
    [path] = [line.split(" ", 1)[1] for line in shown.splitlines() if line.startswith("controlpath ")]
    with running(["ssh", "-F", str(config), "-M", "-N", "-o", "BatchMode=yes", host]):
        until(Path(path).exists)
        until(lambda: server.logins > before)  # sshd writes its log after its answer
        yield Path(path)
