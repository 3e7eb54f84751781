"""The images of all sessions by their contents, so that one which the host holds needs not be sent again.

    FOLDER/.images/SHA256-LENGTH    a hard link to the image file of each session that has this image

A session's image file and its copies are one file on the disk with several names, which is counted once. Where a file
system has no hard links there are no copies, and each image is sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import re
import secrets
import threading
from pathlib import Path

from dls.images import MAGIC, name_image
from dls.server.sessions.folders import has_own_file

COPIES_FOLDER = ".images"
"""Name of the folder, beside those of the sessions; no session has such a name."""
NAME = re.compile(r"[0-9a-f]{64}-[1-9][0-9]{0,14}")
"""Format of a copy's name; nothing else is ever used as part of a path."""
READ_BYTES = 1 << 20
"""Number of bytes that are read at a time."""

log = logging.getLogger("dls.server")


class Copies:
    """The images in the folder of all sessions; no method raises an error of the disk."""

    def __init__(self, home: Path) -> None:
        self._folder = home / COPIES_FOLDER
        self._adding = threading.Lock()

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, of the right length, that belongs to this user."""
        return bool(NAME.fullmatch(name)) and has_own_file(self._folder / name, int(name.rpartition("-")[2]))

    def add(self, name: str, path: Path) -> None:
        """Let the image file of a session be found by its contents; a copy that is there already takes its place."""
        copy = self._folder / name
        with self._adding:  # of two sessions that have got it at once, the second one finds what the first one added
            try:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                if not self.has(name):
                    copy.unlink(missing_ok=True)
                    os.link(path, copy)
                elif not copy.samefile(path):
                    self._share(name, copy, path)
            except OSError as error:
                log.debug("an image can't be shared: %s", error.strerror)
            self._remove_unused(copy)

    def _share(self, name: str, copy: Path, path: Path) -> None:
        """Let the session use the copy in the place of its own file, or replace a copy that is damaged."""
        other, target = (copy, path) if find_name(copy) == name else (path, copy)
        link = target.with_name(f"{secrets.token_hex(4)}.part")
        os.link(other, link)
        link.replace(target)

    def link(self, name: str, path: Path) -> bool:
        """Give the copy a further name, for a session that is to have it; False where there is no such copy."""
        if not self.has(name):
            return False
        try:
            os.link(self._folder / name, path)
        except OSError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a copy that is damaged; the sessions that have it keep their files."""
        with contextlib.suppress(OSError):
            (self._folder / name).unlink()

    def sweep(self) -> None:
        """Remove the copies that no session has any more, and whatever else is there."""
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                self._remove_unused(path)

    def _remove_unused(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            if path.lstat().st_nlink < 2 or not NAME.fullmatch(path.name):
                path.unlink()


def find_name(path: Path) -> str:
    """Return the name that the file has by its contents; raises OSError."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:  # only an array needs all of its bytes at once
            return name_image(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    digest, length = digest_file(path)
    return f"{digest}-{length}"


def digest_file(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file's contents and their length; raises OSError."""
    digest, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
            length += len(block)
    return digest.hexdigest(), length
