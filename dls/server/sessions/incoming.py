"""Writes session files: images as they are received, and what happens when a disk is full."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dls.errors import Exhausted

COPY_BYTES = 1 << 20
"""Number of bytes copied at a time when an image moves to another disk."""

log = logging.getLogger("dls.server")


@contextlib.contextmanager
def translate_disk_errors() -> Iterator[None]:
    """Turn an error of the disk into Exhausted: the request is refused and changes nothing."""
    try:
        yield
    except OSError as error:
        log.error("a session's file can't be written or read: %s", error.strerror)
        raise Exhausted(
            f"The server can't keep this step in its files ({error.strerror}); nothing was changed. "
            "Free some space on its disk, or start it with another --session-dir."
        ) from error


class IncomingImage:
    """An image's compressed bytes, written to a file as they are received.

    `paths` are the places for the file, the best first; when a disk is full, the file moves to the next place.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._file: IO[bytes] | None = None
        self.length = 0
        """Number of bytes written."""

    @property
    def path(self) -> Path:
        """Path of the file, which changes when the file moves to another disk."""
        return self._paths[0]

    def write(self, data: bytes) -> None:
        """Append the bytes; raises Exhausted if no disk has space."""
        with translate_disk_errors():
            while True:
                try:
                    self._file = self._file or create_file(self.path)
                    write_all(self._file, data)
                    self.length += len(data)
                    return
                except OSError:
                    if len(self._paths) == 1:
                        raise
                    self._move_to_next_path()

    def _move_to_next_path(self) -> None:
        full = self._paths.pop(0)
        log.info("no space for an image in %s: moving it to %s", full.parent.parent, self.path.parent.parent)
        before, self._file = self._file, create_file(self.path)
        if before is not None:
            with contextlib.suppress(OSError):  # closing may fail because the disk is full
                before.close()
            with full.open("rb") as source:
                shutil.copyfileobj(source, self._file, COPY_BYTES)
            full.unlink()
            self._file.truncate(self.length)
            self._file.seek(self.length)

    def finish(self) -> None:
        """Close the file, which is complete; raises Exhausted if that fails."""
        with translate_disk_errors():
            if self._file is not None:
                self._file.close()

    def discard(self) -> None:
        """Remove the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self.path.unlink(missing_ok=True)


def create_file(path: Path) -> IO[bytes]:
    """Create a file that only its user can open, in a folder that is created if necessary."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write all the bytes to an unbuffered file.

    When a disk fills up, such a file first writes a part, and raises OSError only at the next attempt.
    """
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
