"""The engine's process, begun before anything else is imported: it has the most to import itself."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from importlib.util import find_spec
from multiprocessing import connection
from typing import NamedTuple

PACKAGES = ("httptools", "isal", "multipart", "numpy", "starlette", "uvicorn")
"""Without these it could not even say what is wrong; those of the engines show when they are loaded."""


class SpawnedWorker(NamedTuple):
    """A process and the pipe that leads to it; it ends when the pipe is closed."""

    pipe: connection.Connection
    process: subprocess.Popen[bytes]


def begin(engine: str) -> SpawnedWorker:
    """Begin the process for the engine of that name. Raises ImportError when the packages are not installed here."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise ImportError(name=package)
    command = [sys.executable, "-m", "dls.server.engines.worker", engine]
    if sys.platform == "win32":
        # A pipe that only who knows the key can use; the key travels on standard input.
        key = secrets.token_bytes(32)
        with connection.Listener(None, "AF_PIPE", authkey=key) as listener:
            process = subprocess.Popen([*command, str(listener.address)], stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(key)
            process.stdin.close()
            return SpawnedWorker(listener.accept(), process)
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
        )
    return SpawnedWorker(connection.Connection(ours.detach()), process)
