"""Locks on files; the system releases them when their process ends, even if it is killed."""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dls.contract import ALREADY_RUNNING
from dls.errors import ListenError

RETRY_SECONDS = 0.02
"""Seconds between two attempts to take a lock."""


@contextlib.contextmanager
def exclusive(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock that only one server of this host at a time may hold.

    Where another host, which shares the folder, holds it, a lock of this host's own takes its place. Raises ListenError
    when another process still holds it after `wait` seconds.
    """
    node = platform.node()
    with path.open("a+", encoding="utf-8") as stream:
        path.chmod(0o600)
        deadline = time.monotonic() + wait
        while not try_lock(stream):
            if _read_holder(stream) not in ("", node):
                with exclusive(path.with_name(f"{path.stem}-{node}{path.suffix}"), wait):
                    yield
                return
            if time.monotonic() >= deadline:
                raise ListenError(ALREADY_RUNNING, "Stop it first: dls stop.")
            time.sleep(RETRY_SECONDS)
        stream.truncate(0)
        stream.write(f"{node}\n")
        stream.flush()
        yield


def _read_holder(stream: IO[str]) -> str:
    """Return the name of the host that holds the lock; empty where a release before holds it."""
    stream.seek(0)
    return stream.readline().strip()


def try_lock(stream: IO[str]) -> bool:
    """Lock an open file and return True, or return False when another process holds the lock."""
    if sys.platform == "win32":  # two servers can't share a port on Windows, so no lock is needed
        return True
    import fcntl

    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
