"""Sessions in files that only their user can open, so that they outlive the server's process.

    HOME/SESSION/session      the manifest, replaced as a whole
    HOME/SESSION/prompts-N    the journal, appended to
    HOME/SESSION/image-N.gz   the image as the client sent it; or FAST/SESSION/…, on memory-backed disk
    HOME/SESSION/lock         held by the server that has the session; several may run

Nothing here is synced to the disk: what must be outlived is the process, not the machine's power.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from dls.contract import DEFAULT_TTL, MANIFEST_FILE
from dls.errors import Conflict, Exhausted, ListenError, RequestError
from dls.server import locks, memory
from dls.server.sessions import journal
from dls.server.sessions.incoming import IncomingImage, create, kept, write
from dls.server.sessions.journal import Broken, Image, Manifest, Record
from dls.server.volume import Geometry

NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Of a session; anything else never comes near a path."""
BROKEN = "broken-"
READ_BYTES = 1 << 20
FAST_SHARE = 0.05
"""Of the memory, how much images in memory-backed files may take; the next ones go to the disk."""

log = logging.getLogger("dls.server")


@dataclass(frozen=True)
class Folders:
    """Where sessions are kept; `fast`, where there is one, is memory-backed and takes images while it has room."""

    home: Path
    fast: Path | None = None

    @property
    def roots(self) -> tuple[Path, ...]:
        """Both, the fast one first."""
        return (self.fast, self.home) if self.fast else (self.home,)


def folders(chosen: Path | None, name: str) -> Folders:
    """Return where the sessions of the server of that name are.

    In the folder that the user chose; else on local disks, never in a home, which may be on NFS.
    """
    if sys.platform == "win32":
        return Folders((chosen or Path(tempfile.gettempdir())) / "dls" / name)
    own = f"dls-{os.getuid()}"
    if chosen is not None:
        return Folders(chosen.expanduser().absolute() / own / name)
    local = Path("/var/tmp")  # noqa: S108 - owner and mode are checked
    shared = Path("/dev/shm")  # noqa: S108
    fast = shared / own / name if shared.is_dir() and os.access(shared, os.W_OK) else None
    return Folders((local if local.is_dir() else Path(tempfile.gettempdir())) / own / name, fast)


class SessionFiles:
    """One session's files; used by one thread at a time."""

    def __init__(self, folders: Folders, manifest: Manifest, lock: IO[str]) -> None:
        self._folders = folders
        self.manifest = manifest
        self.release = lock.close
        """Let another server have the session."""

    @property
    def folder(self) -> Path:
        """Where the manifest is."""
        return self._folders.home / self.manifest.id

    def save(self, manifest: Manifest) -> None:
        """Put the manifest in place, whole or not at all."""
        with kept():
            part = self.folder / f"{MANIFEST_FILE}.part"
            with create(part) as file:
                write(file, journal.write_manifest(manifest))
            part.replace(self.folder / MANIFEST_FILE)
        self.manifest = manifest

    def arriving(self, expected: int) -> IncomingImage:
        """Begin a new image of about so many bytes, in the fastest place that has room for it."""
        name = f"image-{secrets.token_hex(4)}.gz"  # two may arrive at once
        roots = list(self._folders.roots)
        if len(roots) > 1 and not _has_room(roots[0], expected):
            roots = roots[1:]
        return IncomingImage([root / self.manifest.id / name for root in roots])

    def take_image(self, arrived: IncomingImage, geometry: Geometry, request: str) -> None:
        """Make what has arrived the session's image, with nothing drawn on it."""
        arrived.finish()
        before = self.manifest
        image = Image(str(arrived.path), arrived.length, geometry, request)
        number = before.number + 1
        self.save(replace(before, image=image, journal=f"prompts-{number}", number=number))
        self._remove_files(before)

    def reset(self) -> None:
        """Forget the prompts."""
        before = self.manifest
        number = before.number + 1
        self.save(replace(before, journal=f"prompts-{number}", number=number))
        self._remove_files(before)

    def _remove_files(self, before: Manifest) -> None:
        with contextlib.suppress(OSError):
            if before.image and (self.manifest.image is None or before.image.path != self.manifest.image.path):
                Path(before.image.path).unlink(missing_ok=True)
            if before.journal:
                (self.folder / before.journal).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed server left half."""
        image = self.manifest.image
        with contextlib.suppress(OSError):
            for path in [path for root in self._folders.roots for path in (root / self.manifest.id).glob("*")]:
                is_old = path.name.startswith("image-") and not (image and image.path == str(path))
                if is_old or path.suffix == ".part":
                    path.unlink(missing_ok=True)

    def append(self, record: Record) -> None:
        """Add a prompt that was answered; the journal stays as it was when there is no room."""
        data = journal.write_record(record)
        path = self.folder / self.manifest.journal
        with kept():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                length = file.tell()
                try:
                    write(file, data)
                except OSError:
                    file.truncate(length)
                    raise

    def records(self) -> list[Record]:
        """Return the prompts; what a killed server was writing is cut off."""
        path = self.folder / self.manifest.journal
        if not self.manifest.journal or not path.exists():
            return []
        with kept():
            data = path.read_bytes()
            read = journal.read_journal(data)
            if read.length < len(data):
                log.warning("the end of a session's prompts was not whole: %d bytes cut", len(data) - read.length)
                os.truncate(path, read.length)
        return read.records

    def image(self, take: Callable[[bytes], object]) -> None:
        """Read the compressed image, block by block."""
        assert self.manifest.image is not None
        with kept(), Path(self.manifest.image.path).open("rb") as file:
            while block := file.read(READ_BYTES):
                take(block)

    def touch(self) -> None:
        """Say that the session is in use, so that its files stay; cleaners of old files look at these times too."""
        image = self.manifest.image
        for path in (self.folder / MANIFEST_FILE, Path(image.path) if image else None):
            if path is not None:
                with contextlib.suppress(OSError):
                    os.utime(path)

    def remove(self) -> None:
        """Remove every file."""
        _remove(self._folders, self.manifest.id)
        self.release()


def _has_room(root: Path, expected: int) -> bool:
    try:
        held = sum(path.stat().st_size for path in root.glob("*/image-*"))
        return shutil.disk_usage(root).free > 2 * expected and held + expected < FAST_SHARE * memory.total()
    except OSError:
        return False


def _remove(folders: Folders, name: str) -> None:
    for root in folders.roots:
        shutil.rmtree(root / name, ignore_errors=True)


class SessionStore:
    """All sessions' files; `open` it before use."""

    def __init__(self, folders: Folders, ttl: float = DEFAULT_TTL) -> None:
        self._folders = folders
        self._ttl = ttl

    def open(self) -> SessionStore:
        """Make the folders private, and remove what is too old."""
        for root in self._folders.roots:
            _make_private(root)
        self.expire(())
        return self

    def create(self, session: str, model: str, engine: str) -> SessionFiles:
        """Begin a session's files."""
        for root in self._folders.roots:
            if not root.is_dir():  # somebody cleaned up
                try:
                    _make_private(root)
                except ListenError as error:
                    raise Exhausted(error.message) from error
        folder = self._folders.home / session
        with kept():
            folder.mkdir(mode=0o700, exist_ok=True)
            made = SessionFiles(self._folders, Manifest(session, model, engine), _claim(folder))
        made.save(made.manifest)
        return made

    def find(self, session: str) -> SessionFiles | None:
        """Return the session's files, or None for no such session; broken ones are set aside."""
        folder = self._folders.home / session
        if not NAME.fullmatch(session) or not folder.is_dir():
            return None
        with kept():
            lock = _claim(folder)
        try:
            manifest = journal.read_manifest((folder / MANIFEST_FILE).read_bytes())
            if manifest.id != session or not _is_whole(manifest):
                raise Broken("its image is gone")
            found = SessionFiles(self._folders, manifest, lock)
            found.records()
            found.sweep()
        except FileNotFoundError:
            lock.close()
            return None
        except Broken as why:
            log.warning("the files of session %s are set aside: %s", session[:8], why)
            with contextlib.suppress(OSError):
                folder.rename(folder.with_name(BROKEN + session))
            lock.close()
            return None
        except BaseException:
            lock.close()
            raise
        return found

    def expire(self, in_use: tuple[str, ...]) -> None:
        """Remove the sessions that nobody has used for longer than the time to live."""
        limit = time.time() - self._ttl
        for folder in self._folders.home.iterdir():
            if folder.is_dir() and folder.name not in in_use and _last_used(folder) < limit:
                with contextlib.suppress(RequestError, OSError), _claim(folder):
                    log.info("session %s was not used for long: its files are removed", folder.name[:8])
                    _remove(self._folders, folder.name)
        if self._folders.fast is not None:
            for folder in self._folders.fast.iterdir():
                if not (self._folders.home / folder.name).exists():
                    shutil.rmtree(folder, ignore_errors=True)


def _is_whole(manifest: Manifest) -> bool:
    if manifest.image is None:
        return True
    try:
        return Path(manifest.image.path).stat().st_size == manifest.image.bytes
    except OSError:
        return False


def _last_used(folder: Path) -> float:
    times = [folder.stat().st_mtime]
    with contextlib.suppress(OSError):
        times += [path.stat().st_mtime for path in folder.iterdir()]
    return max(times)


def _make_private(root: Path) -> None:
    try:
        for folder in (root.parent, root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = folder.lstat()
            if folder is root or folder.name.startswith("dls-"):
                if sys.platform != "win32" and (folder.is_symlink() or there.st_uid != os.getuid()):
                    raise ListenError(f"{folder} belongs to somebody else.", "Name another folder with --session-dir.")
                folder.chmod(0o700)
    except OSError as error:
        raise ListenError(
            f"Sessions can't be kept in {root}: {error.strerror}.", "Name another folder with --session-dir."
        ) from error


def _claim(folder: Path) -> IO[str]:
    """Take the session for this server; it is free again when the process ends, however that happens."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    lock = os.fdopen(descriptor, "w")
    if not locks.try_lock(lock):
        lock.close()
        raise Conflict(
            "This session is in use by another server of yours on the same machine. Use it there, or end it."
        )
    return lock
