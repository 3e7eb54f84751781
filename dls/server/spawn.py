"""Start the engine's process before the server imports anything else, since that process has the most to import.

This module stays outside `engines/`, whose `__init__` imports numpy, and imports no packages of others.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from importlib.util import find_spec
from multiprocessing import connection
from typing import NamedTuple

from dls.contract import NOT_INSTALLED
from dls.errors import HostError
from dls.extras import install_hint

PACKAGES = ("httptools", "isal", "multipart", "numpy", "starlette", "uvicorn")
"""Packages that the server needs to report any error."""
ENGINE_PACKAGES = {"nninteractive": ("torch", "nnInteractive", "huggingface_hub")}
"""Packages that an engine needs beyond those."""


class EngineChild(NamedTuple):
    """The engine's process and the pipe to it; the process ends when the pipe is closed."""

    pipe: connection.Connection
    process: subprocess.Popen[bytes]


def require_packages(name: str) -> None:
    """Raise HostError, before anything is started, where a package of the engine is missing; imports none of them."""
    for package in ENGINE_PACKAGES.get(name, ()):
        if find_spec(package) is None:
            raise HostError(f"The engine's {NOT_INSTALLED} ({package}).", install_hint(name))


def spawn_engine(name: str) -> EngineChild:
    """Start the process for the engine of that name. Raises ImportError when the server's packages are missing."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise ImportError(name=package)
    command = [sys.executable, "-m", "dls.server.engines.worker", name]
    if sys.platform == "win32":
        # Any user of the machine could connect to the named pipe, so the process proves itself by a key, which it
        # reads from standard input.
        key = secrets.token_bytes(32)
        with connection.Listener(None, "AF_PIPE", authkey=key) as listener:
            process = subprocess.Popen([*command, str(listener.address)], stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(key)
            process.stdin.close()
            return EngineChild(listener.accept(), process)
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
        )
    return EngineChild(connection.Connection(ours.detach()), process)
