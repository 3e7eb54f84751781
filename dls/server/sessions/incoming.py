"""Writes session files: images as they are received, and what happens when a disk is full."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dls.errors import Exhausted

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
    """An image's compressed bytes, written to a file as they are received; call `open` before use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self.length = 0
        """Number of bytes written."""

    def open(self) -> IncomingImage:
        """Create the file, in a folder that exists; raises Exhausted."""
        with translate_disk_errors():
            self._file = create_file(self.path)
        return self

    def write(self, data: bytes) -> None:
        """Append the bytes; raises Exhausted if the disk has no space."""
        assert self._file is not None
        with translate_disk_errors():
            write_all(self._file, data)
        self.length += len(data)

    def finish(self) -> None:
        """Close the file, which is complete; raises Exhausted if that fails or the file was removed meanwhile."""
        assert self._file is not None
        with translate_disk_errors():
            self._file.close()
            self.path.stat()

    def discard(self) -> None:
        """Remove the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


def create_file(path: Path) -> IO[bytes]:
    """Create a file that only its user can open, in a folder that exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def write_file(path: Path, data: bytes) -> None:
    """Create a file that only its user can open, with the data as its contents."""
    with create_file(path) as file:
        write_all(file, data)


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write all the bytes to an unbuffered file.

    When a disk fills up, such a file first writes a part, and raises OSError only at the next attempt.
    """
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
