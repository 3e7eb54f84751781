"""A session's files as they are written: images as they arrive, and what a full disk means."""

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

log = logging.getLogger("dls.server")


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Turn what a disk says into a refusal that changes nothing."""
    try:
        yield
    except OSError as error:
        log.error("a session's file can't be written or read: %s", error.strerror)
        raise Exhausted(
            f"The server can't keep this step in its files ({error.strerror}); nothing was changed. "
            "Free some space on its disk, or start it with another --session-dir."
        ) from error


class IncomingImage:
    """An image's compressed bytes, written as they arrive; where one disk is full, they go on on the next."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._file: IO[bytes] | None = None
        self.length = 0

    @property
    def path(self) -> Path:
        """Where the file is now."""
        return self._paths[0]

    def write(self, data: bytes) -> None:
        """Append bytes."""
        with kept():
            while True:
                try:
                    self._file = self._file or create(self.path)
                    write(self._file, data)
                    self.length += len(data)
                    return
                except OSError:
                    if len(self._paths) == 1:
                        raise
                    self._move_on()

    def _move_on(self) -> None:
        full = self._paths.pop(0)
        log.info("no room for an image in %s: going on in %s", full.parent.parent, self.path.parent.parent)
        before, self._file = self._file, create(self.path)
        if before is not None:
            with contextlib.suppress(OSError):  # of what it could not write any more
                before.close()
            with full.open("rb") as source:
                shutil.copyfileobj(source, self._file, COPY_BYTES)
            full.unlink()
            self._file.truncate(self.length)
            self._file.seek(self.length)

    def finish(self) -> None:
        """Close the file, which is whole."""
        with kept():
            if self._file is not None:
                self._file.close()

    def discard(self) -> None:
        """Remove the file, which will not be used."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self.path.unlink(missing_ok=True)


def create(path: Path) -> IO[bytes]:
    """Begin a file for its user only."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def write(file: IO[bytes], data: bytes) -> None:
    """Write all of it: on a disk that gets full, an unbuffered file takes a part, and says so at the next try."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
