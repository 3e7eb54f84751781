"""Watches that no secret is handed to another program where all users of the computer can read it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator

STARTS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn")
"""Audit events of Python for the start of another program."""

_watches: list[list[str]] = []
"""The records that are being kept; a hook can't be removed, so it writes into what stands here."""


def _record(event: str, arguments: tuple[object, ...]) -> None:
    if _watches and event in STARTS:
        for watch in _watches:
            watch.append(repr(arguments))


sys.addaudithook(_record)


@contextlib.contextmanager
def watching() -> Iterator[list[str]]:
    """Record what programs this process starts, each with its arguments and its environment."""
    watch: list[str] = []
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.remove(watch)


def find(secrets: Iterable[str], texts: Iterable[str]) -> str | None:
    """Return the first text with one of the secrets in it; None where there is none."""
    return next((text for text in texts for secret in secrets if secret in text), None)
