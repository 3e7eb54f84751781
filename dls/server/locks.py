"""Locks on files, which are free again when their process ends, however that happens."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dls.contract import ALREADY_RUNNING
from dls.errors import ListenError

LOOK_SECONDS = 0.02


@contextlib.contextmanager
def only_one(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock that one server at a time may hold; it goes with the process, however that ends.

    Raises ListenError when another one still holds it after so many seconds.
    """
    with path.open("a") as stream:
        path.chmod(0o600)
        deadline = time.monotonic() + wait
        while not is_free(stream):
            if time.monotonic() >= deadline:
                raise ListenError(ALREADY_RUNNING, "Stop it first: dls stop.")
            time.sleep(LOOK_SECONDS)
        yield


def is_free(stream: IO[str]) -> bool:
    """Take the lock on an open file, unless another process has it."""
    if sys.platform == "win32":  # two servers there can't share a port
        return True
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
