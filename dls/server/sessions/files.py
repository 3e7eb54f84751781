"""One session's files, which outlive the server's process. Only their user can open them.

    FOLDER/SESSION/session      the manifest, which is always written as a whole
    FOLDER/SESSION/prompts-N    the journal, to which prompts are appended
    FOLDER/SESSION/mask-N-C.gz  the mask with which prompt number C of the journal was answered
    FOLDER/SESSION/image-N.gz   the image as the client sent it; an official client's is image-N.nnia
    FOLDER/SESSION/part-N.gz    what has arrived of an image that the request N sends, or of one whose upload was cut
    FOLDER/SESSION/lock         locked by the server that has the session; several servers may run

A prompt's mask is written first, then its record in the journal, then the manifest, and only then the prompt is
answered. Nothing is synced to the disk: the files have to outlive the process, not a power failure of the machine.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import shutil
import time
import zlib
from collections.abc import Callable, Set
from dataclasses import replace
from pathlib import Path
from typing import IO

from dls.contract import BEGIN_ANEW, MANIFEST_FILE
from dls.errors import Conflict, NotHeld
from dls.server.operations import Carried
from dls.server.sessions import journal
from dls.server.sessions.copies import Copies, digest_file
from dls.server.sessions.folders import Folders
from dls.server.sessions.incoming import (
    IMAGE_PREFIX,
    NOTHING_HELD,
    PART_PREFIX,
    READ_BYTES,
    CopiedImage,
    IncomingImage,
    image_file,
    part_file,
    translate_disk_errors,
    write_all,
    write_file,
)
from dls.server.sessions.journal import Image, Journal, Manifest, Record
from dls.server.sessions.official_records import OfficialRecord
from dls.server.volume import Geometry

GZIP = 31
"""Window size that makes zlib read a gzip member."""
PART_SECONDS = 3600.0
"""Seconds for which what has arrived of an upload that was cut is kept: a link that was lost is back by then."""
REMOVED_PREFIX = ".removed-"
"""Start of the name that a session's folder gets before it is removed, so that nothing can be added to it."""

log = logging.getLogger("dls.server")


class SessionFiles:
    """One session's files, which one thread may use at a time; every method that writes raises Exhausted."""

    def __init__(self, folders: Folders, manifest: Manifest, lock: IO[str]) -> None:
        self._folders = folders
        self._lock = lock
        self.manifest = manifest
        self.last_request = ""
        """The request that sent the last stored prompt, once `recover` has read the journal."""
        self.last_operation: OfficialRecord | None = None
        """The last stored operation of an official session, once `recover` has read the journal."""

    def release(self) -> None:
        """Release the lock, so that another server can take the session."""
        self._lock.close()

    @property
    def folder(self) -> Path:
        """The folder that holds the files."""
        return self._folders.home / self.manifest.id

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest, as a whole or not at all."""
        with translate_disk_errors():
            self._replace_manifest(manifest)

    def _replace_manifest(self, manifest: Manifest) -> None:
        part = self.folder / f"{MANIFEST_FILE}.part"
        write_file(part, journal.encode_manifest(manifest))
        part.replace(self.folder / MANIFEST_FILE)
        self.manifest = manifest

    def _overwrite_manifest(self, manifest: Manifest) -> None:
        """Write the manifest over the one before where it has the same length, which needs no space on the disk.

        The system writes what lies within one page completely even if the process is killed. Replacing a file makes
        ext4 write to the disk, which took 0.4 ms and up to 38 ms while other programs used it, instead of 0.03 ms.
        """
        data, path = journal.encode_manifest(manifest), self.folder / MANIFEST_FILE
        if len(data) > mmap.PAGESIZE or len(data) != path.stat().st_size:
            self._replace_manifest(manifest)
            return
        with path.open("r+b", buffering=0) as file:
            write_all(file, data)
        self.manifest = manifest

    def receive_image(self, name: str = "", held: int = 0) -> IncomingImage:
        """Create the file for an image that is received, or open the one of which so many bytes were.

        With the `name` of its request an upload can go on after it was cut. Raises NotHeld.
        """
        return IncomingImage(self.folder / self._name_image(name), name, held).open()

    def take_image(self, copies: Copies, name: str) -> IncomingImage:
        """Take the copy of an image that the host holds; raises NotHeld where it does not."""
        path = self.folder / self._name_image()
        if not copies.link(name, path):
            raise NotHeld(NOTHING_HELD)
        length = path.stat().st_size
        return CopiedImage(path, held=length)

    def _name_image(self, request: str = "") -> str:
        suffix = ".gz" if self.manifest.carried is None else ".nnia"
        return part_file(request, suffix) if request else image_file(suffix)

    def find_part(self, name: str) -> tuple[int, str]:
        """Return how many bytes are there of the image that the request of that name sent, and their SHA-256."""
        try:
            digest, length = digest_file(self.folder / self._name_image(name))
        except OSError:
            return 0, ""
        return length, digest

    def set_image(
        self, incoming: IncomingImage, geometry: Geometry, request: str, carried: Carried | None = None
    ) -> None:
        """Make the received image the session's image, with no prompts, and with what an official session carries."""
        incoming.finish()
        image = Image(str(incoming.path), incoming.length, geometry, request)
        self._replace_journal(replace(self.manifest, image=image, carried=carried))

    def remove_parts(self, older: float = 0.0, used: Set[str] = frozenset()) -> None:
        """Remove what was kept of uploads that were cut for so many seconds, except the files named `used`."""
        with contextlib.suppress(OSError):
            for path in self.folder.glob(f"{PART_PREFIX}*"):
                if path.name not in used and path.stat().st_mtime <= time.time() - older:
                    path.unlink(missing_ok=True)

    def reset(self, carried: Carried | None = None) -> None:
        """Remove the prompts, and keep what an official session carries."""
        self._replace_journal(replace(self.manifest, carried=carried))

    def _replace_journal(self, manifest: Manifest) -> None:
        old = self.manifest
        self.save(journal.next_journal(manifest))
        self._remove_replaced(old)

    def _remove_replaced(self, old: Manifest) -> None:
        """Remove the files that the manifest before named and the present one does not."""
        new = self.manifest
        with contextlib.suppress(OSError):
            if old.image and (new.image is None or old.image.path != new.image.path):
                Path(old.image.path).unlink(missing_ok=True)
                Copies(self._folders.home).sweep()
            for name in {old.journal, old.mask} - {new.journal, new.mask, ""}:
                (self.folder / name).unlink(missing_ok=True)

    def recover(self) -> None:
        """Take over the files of a server that may have been killed: call it once, before anything else is read.

        Prompts that were stored completely, but not yet named in the manifest or answered, are kept: their requests
        are sent again, and must not be applied twice. Incomplete files are removed.
        """
        with contextlib.suppress(Conflict):  # a damaged journal is refused at the next prompt
            found = self._decode_journal()
            if self.manifest.end is not None:
                self.manifest = replace(self.manifest, end=found.ends[-1])
            last = found.records[-1] if found.records else self.manifest.carried
            self.last_request = last.request if last else ""
            self.last_operation = last if isinstance(last, OfficialRecord) else None
        self._remove_leftovers()
        self.remove_parts(PART_SECONDS)

    def _remove_leftovers(self) -> None:
        image, used = self.manifest.image, (self.manifest.journal, self.manifest.mask)
        with contextlib.suppress(OSError):
            for path in [path for root in self._folders.roots for path in (root / self.manifest.id).glob("*")]:
                is_unused_image = path.name.startswith(IMAGE_PREFIX) and not (image and image.path == str(path))
                is_unused = path.name.startswith(("prompts-", "mask-")) and path.name not in used
                if is_unused_image or is_unused or path.suffix == ".part":
                    path.unlink(missing_ok=True)

    def append(self, record: Record | OfficialRecord, mask: bytes) -> None:
        """Store a prompt and the gzip member of the mask that answers it; if there is no space, nothing changes.

        Raises Conflict when the journal is damaged.
        """
        old = self.manifest
        with translate_disk_errors():
            current = old if old.end is not None else self._chain_records(old)
            try:
                self._append(current, record, mask)
            except BaseException:
                if current is not old:
                    _remove(self.folder / current.journal)
                raise
        self._remove_replaced(old)

    def _append(self, manifest: Manifest, record: Record | OfficialRecord, mask: bytes) -> None:
        assert manifest.end is not None
        data, end = journal.encode_record(record, manifest.end)
        new = replace(manifest, end=end)
        path, length = self.folder / manifest.journal, manifest.end.length
        _check_length(path, length)
        try:
            write_file(self.folder / new.mask, mask)
            _write_at(path, length, data)
            self._overwrite_manifest(new)
        except BaseException:
            _remove(self.folder / new.mask)
            _cut(path, length)
            raise

    def _chain_records(self, old: Manifest) -> Manifest:
        """Write the records of a journal of format 1 to a new, chained journal, and return a manifest that names it."""
        new = journal.next_journal(old)
        assert new.end is not None
        end, parts = new.end, []
        for record in self.read_records():
            data, end = journal.encode_record(record, end)
            parts.append(data)
        try:
            write_file(self.folder / new.journal, b"".join(parts))
        except BaseException:
            _remove(self.folder / new.journal)
            raise
        return replace(new, end=end)

    def read_records(self) -> list[Record]:
        """Return the prompts, and cut off what follows them; raises Conflict when the journal is damaged."""
        return [record for record in self._read_records() if isinstance(record, Record)]

    def read_operations(self) -> list[OfficialRecord]:
        """Return the operations of an official session, as `read_records` returns prompts."""
        return [record for record in self._read_records() if isinstance(record, OfficialRecord)]

    def _read_records(self) -> list[Record | OfficialRecord]:
        found, end = self._decode_journal(), self.manifest.end
        kept = found.ends[-1] if end is None else end
        _cut(self.folder / self.manifest.journal, kept.length)
        return found.records[: kept.count]

    def _decode_journal(self) -> Journal:
        """Decode the journal; raises Conflict unless it holds all that the manifest names."""
        manifest = self.manifest
        with translate_disk_errors():
            path = self.folder / manifest.journal
            data = path.read_bytes() if manifest.journal and path.exists() else b""
        found = journal.decode_journal(data, manifest)
        if manifest.end is not None and manifest.journal and manifest.end not in found.ends:
            log.error("the journal of session %s is damaged after %d prompts", manifest.id[:8], len(found.records))
            raise _damaged()
        return found

    def read_mask(self, voxels: int, crc: int) -> bytes | None:
        """Return the mask, one byte a voxel, that the last prompt was answered with; None if it is not there whole."""
        try:
            data = (self.folder / self.manifest.mask).read_bytes()
            mask = zlib.decompressobj(GZIP).decompress(data, voxels + 1)
        except (OSError, zlib.error):
            return None
        return mask if len(mask) == voxels and zlib.crc32(mask) == crc else None

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
        manifest = self.manifest
        names = {MANIFEST_FILE, manifest.journal, manifest.mask} - {""}
        images = [Path(manifest.image.path)] if manifest.image else []
        for path in [*images, *(self.folder / name for name in names)]:
            with contextlib.suppress(OSError):
                os.utime(path)

    def remove(self) -> None:
        """Remove every file and release the lock."""
        remove_files(self._folders, self.manifest.id)
        self.release()


def remove_files(folders: Folders, session: str) -> None:
    """Remove every file of a session, as one step for those who look for it or would add a file.

    The copy of its image goes too, unless another session has it.
    """
    for root in folders.roots:
        removed = root / f"{REMOVED_PREFIX}{session}"
        with contextlib.suppress(OSError):
            (root / session).rename(removed)
        for folder in (removed, root / session):
            shutil.rmtree(folder, ignore_errors=True)
    Copies(folders.home).sweep()


def _damaged() -> Conflict:
    return Conflict(
        f"The stored prompts of this session are damaged, so its mask can't be computed again. {BEGIN_ANEW}"
    )


def _check_length(path: Path, length: int) -> None:
    """Raise Conflict when a journal is shorter than what was written to it."""
    if length and path.stat().st_size < length:
        log.error("the journal %s was cut off while the session was open", path.name)
        raise _damaged()


def _write_at(path: Path, length: int, data: bytes) -> None:
    """Write the data after the first `length` bytes of the file, and nothing after them."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.truncate(length)
        file.seek(length)
        write_all(file, data)


def _cut(path: Path, length: int) -> None:
    """Cut off what follows the first `length` bytes of a journal, if there is anything."""
    with contextlib.suppress(OSError):
        surplus = path.stat().st_size - length
        if surplus > 0:
            log.warning("%d bytes after the end of a session's prompts were cut off", surplus)
            os.truncate(path, length)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
