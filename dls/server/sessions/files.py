"""One session's files, which outlive the server's process. Only their user can open them.

    HOME/SESSION/session      the manifest, which is always replaced as a whole
    HOME/SESSION/prompts-N    the journal, to which prompts are appended
    HOME/SESSION/image-N.gz   the image as the client sent it; or FAST/SESSION/image-N.gz on a memory-backed disk
    HOME/SESSION/lock         locked by the server that has the session; several servers may run

Nothing is synced to the disk: the files have to outlive the process, not a power failure of the machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from dls.contract import MANIFEST_FILE
from dls.server import memory
from dls.server.sessions import journal
from dls.server.sessions.folders import Folders
from dls.server.sessions.incoming import IncomingImage, create_file, translate_disk_errors, write_all
from dls.server.sessions.journal import Image, Manifest, Record
from dls.server.volume import Geometry

READ_BYTES = 1 << 20
"""Number of bytes of an image that are read at a time."""
FAST_SHARE = 0.05
"""Maximum share of the memory for images in memory-backed files; images beyond it go to the disk."""

log = logging.getLogger("dls.server")


class SessionFiles:
    """One session's files, which one thread may use at a time; every method that writes raises Exhausted."""

    def __init__(self, folders: Folders, manifest: Manifest, lock: IO[str]) -> None:
        self._folders = folders
        self._lock = lock
        self.manifest = manifest

    def release(self) -> None:
        """Release the lock, so that another server can take the session."""
        self._lock.close()

    @property
    def folder(self) -> Path:
        """The folder that holds the manifest."""
        return self._folders.home / self.manifest.id

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest, as a whole or not at all."""
        with translate_disk_errors():
            part = self.folder / f"{MANIFEST_FILE}.part"
            with create_file(part) as file:
                write_all(file, journal.encode_manifest(manifest))
            part.replace(self.folder / MANIFEST_FILE)
        self.manifest = manifest

    def receive_image(self, expected: int) -> IncomingImage:
        """Prepare to receive an image of about `expected` bytes, in the fastest folder that has space for it."""
        name = f"image-{secrets.token_hex(4)}.gz"  # random, because two uploads may come at once
        roots = list(self._folders.roots)
        if len(roots) > 1 and not _has_space(roots[0], expected):
            roots = roots[1:]
        return IncomingImage([root / self.manifest.id / name for root in roots])

    def set_image(self, incoming: IncomingImage, geometry: Geometry, request: str) -> None:
        """Make the received image the session's image, with no prompts."""
        incoming.finish()
        old = self.manifest
        image = Image(str(incoming.path), incoming.length, geometry, request)
        number = old.number + 1
        self.save(replace(old, image=image, journal=f"prompts-{number}", number=number))
        self._remove_replaced(old)

    def reset(self) -> None:
        """Remove the prompts."""
        old = self.manifest
        number = old.number + 1
        self.save(replace(old, journal=f"prompts-{number}", number=number))
        self._remove_replaced(old)

    def _remove_replaced(self, old: Manifest) -> None:
        with contextlib.suppress(OSError):
            if old.image and (self.manifest.image is None or old.image.path != self.manifest.image.path):
                Path(old.image.path).unlink(missing_ok=True)
            if old.journal:
                (self.folder / old.journal).unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove the incomplete files of a server that was killed."""
        image = self.manifest.image
        with contextlib.suppress(OSError):
            for path in [path for root in self._folders.roots for path in (root / self.manifest.id).glob("*")]:
                is_unused_image = path.name.startswith("image-") and not (image and image.path == str(path))
                if is_unused_image or path.suffix == ".part":
                    path.unlink(missing_ok=True)

    def append(self, record: Record) -> None:
        """Append a prompt that was answered; if there is no space, the journal stays as it was."""
        data = journal.encode_record(record)
        path = self.folder / self.manifest.journal
        with translate_disk_errors():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                length = file.tell()
                try:
                    write_all(file, data)
                except OSError:
                    file.truncate(length)
                    raise

    def read_records(self) -> list[Record]:
        """Return the prompts, and cut off a last one that is incomplete because the server was killed."""
        path = self.folder / self.manifest.journal
        if not self.manifest.journal or not path.exists():
            return []
        with translate_disk_errors():
            data = path.read_bytes()
            decoded = journal.decode_journal(data)
            if decoded.length < len(data):
                cut = len(data) - decoded.length
                log.warning("the end of a session's prompts was not complete: %d bytes cut", cut)
                os.truncate(path, decoded.length)
        return decoded.records

    def read_image(self, feed: Callable[[bytes], object]) -> None:
        """Call `feed` with the compressed image, block by block."""
        assert self.manifest.image is not None
        with translate_disk_errors(), Path(self.manifest.image.path).open("rb") as file:
            while block := file.read(READ_BYTES):
                feed(block)

    def refresh_times(self) -> None:
        """Set the files' modification times to now.

        A session whose files are too old is removed as expired, and programs that clean temporary folders look at the
        times too.
        """
        image = self.manifest.image
        for path in (self.folder / MANIFEST_FILE, Path(image.path) if image else None):
            if path is not None:
                with contextlib.suppress(OSError):
                    os.utime(path)

    def remove(self) -> None:
        """Remove every file and release the lock."""
        remove_files(self._folders, self.manifest.id)
        self.release()


def remove_files(folders: Folders, session: str) -> None:
    """Remove every file of a session."""
    for root in folders.roots:
        shutil.rmtree(root / session, ignore_errors=True)


def _has_space(root: Path, expected: int) -> bool:
    try:
        used = sum(path.stat().st_size for path in root.glob("*/image-*"))
        return shutil.disk_usage(root).free > 2 * expected and used + expected < FAST_SHARE * memory.total()
    except OSError:
        return False
