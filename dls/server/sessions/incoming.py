"""Writes session files: images as they are received, and what happens when a disk is full."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from dls.errors import BadRequest, Exhausted, NotHeld

IMAGE_PREFIX, PART_PREFIX = "image-", "part-"
"""Start of the names of files with an image, and with one that arrives or whose upload was cut."""
MIN_PART = 1 << 20
"""Bytes below which what has arrived of an upload that was cut is not kept: they are soon sent again."""
READ_BYTES = 1 << 20
"""Number of bytes that are read at a time."""
NOTHING_HELD = "The server does not hold that part of the image; it has to be sent as a whole."

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
    """An image's compressed bytes, written to a file as they are received; call `open` before use.

    With the name of its request, an upload that is cut can go on: the file stays, and `held` says how much of it the
    next request of that name finds there.
    """

    is_copy = False
    """Whether the host holds all of the image, and nothing of it is received."""

    def __init__(self, path: Path, name: str = "", held: int = 0) -> None:
        self.path = path
        self.name = name
        self.held = held
        """Bytes of the image that the file held before the request."""
        self.length = held
        """Number of bytes in the file."""
        self.expected = 0
        """Bytes that the image will have, as far as its client has said."""
        self._file: IO[bytes] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file is being written."""
        return self._file is not None and not self._file.closed

    def open(self) -> IncomingImage:
        """Create the file in a folder that exists, or open what it holds; raises Exhausted, and NotHeld."""
        with translate_disk_errors():
            self._file = open_part(self.path, self.held) if self.held else create_file(self.path)
        return self

    def write(self, data: bytes) -> None:
        """Append the bytes; raises Exhausted if the disk has no space."""
        assert self._file is not None
        with translate_disk_errors():
            write_all(self._file, data)
        self.length += len(data)

    def read_held(self, feed: Callable[[bytes], object]) -> None:
        """Call `feed` with the bytes that the file held before, block by block; raises Exhausted."""
        left = self.held
        with translate_disk_errors(), self.path.open("rb") as file:
            while left and (block := file.read(min(READ_BYTES, left))):
                left -= len(block)
                feed(block)

    def finish(self) -> None:
        """Close the file, which is complete; raises Exhausted if that fails or the file was removed meanwhile."""
        assert self._file is not None
        with translate_disk_errors():
            self._file.close()
            if self.path.name.startswith(PART_PREFIX):
                self.path = self.path.rename(self.path.with_name(image_file(self.path.suffix)))
            self.path.stat()

    def leave(self) -> None:
        """Close the file and let it be for the next request of that name, where it has one and holds much."""
        if self.path.name.startswith(PART_PREFIX) and self.length >= MIN_PART:
            self._close()
        else:
            self.discard()

    def discard(self) -> None:
        """Remove the file."""
        self._close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


class CopiedImage(IncomingImage):
    """An image that the host holds already, under a further name of its file."""

    is_copy = True

    def open(self) -> IncomingImage:
        """Do nothing: the file is there."""
        return self

    def write(self, data: bytes) -> None:
        """Refuse what a client sends all the same; the file is that of other sessions too."""
        raise BadRequest("This request sends an image that it also says the server holds.")

    def finish(self) -> None:
        """Raise Exhausted if the file was removed meanwhile."""
        with translate_disk_errors():
            self.path.stat()


def image_file(suffix: str) -> str:
    """Return a name for an image's file: a random one, because two uploads may come at once."""
    return f"{IMAGE_PREFIX}{secrets.token_hex(4)}{suffix}"


def part_file(name: str, suffix: str) -> str:
    """Return the name of the file in which the image that a request sends arrives."""
    return f"{PART_PREFIX}{name}{suffix}"


def open_part(path: Path, held: int) -> IO[bytes]:
    """Open a file that holds so many bytes of an image, to append the rest; raises NotHeld for another length."""
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        raise NotHeld(NOTHING_HELD) from None
    if file.seek(0, os.SEEK_END) != held:
        file.close()
        raise NotHeld(NOTHING_HELD)
    return file


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
