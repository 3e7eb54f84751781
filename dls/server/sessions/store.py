"""The store of all sessions' files: create, find and expire them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dls.contract import DEFAULT_TTL, MANIFEST_FILE
from dls.errors import Conflict, Exhausted, ListenError, NoRoom, RequestError
from dls.server import locks
from dls.server.operations import Carried
from dls.server.sessions import journal, quota
from dls.server.sessions.copies import COPIES_FOLDER, Copies
from dls.server.sessions.expiry import Sightings
from dls.server.sessions.files import SessionFiles, remove_files
from dls.server.sessions.folders import Folders, create_private, has_own_file
from dls.server.sessions.incoming import IMAGE_PREFIX, translate_disk_errors
from dls.server.sessions.journal import DamagedFile, Manifest

SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Format of a session's id; nothing else is ever used as part of a path."""
DAMAGED_PREFIX = "broken-"
"""Start of the name that the folder of a damaged session gets."""
CONFIRM_SECONDS = 86400.0
"""Seconds between the two looks that must find a session expired before it is removed."""

log = logging.getLogger("dls.server")


@dataclass(frozen=True)
class StoredManifest:
    """A session's manifest as it is found in its file, its folder, and when it was written."""

    manifest: Manifest
    folder: Path
    changed: float


class SessionStore:
    """All sessions' files in a server's folders; call `open` before use."""

    def __init__(self, folders: Folders, ttl: float = DEFAULT_TTL, disk: int = 0) -> None:
        self._folders = folders
        self.ttl = ttl
        """Seconds without use after which a session's files are removed."""
        self._disk = disk
        """Bytes that the files of all sessions may take; 0 for the default."""
        self.copies = Copies(folders.home)
        self._sightings = Sightings(folders.home, min(ttl, CONFIRM_SECONDS))

    def open(self) -> SessionStore:
        """Create the folders for their user only, and remove expired sessions; raises ListenError."""
        self._folders.create()
        self.remove_expired(())
        if not self._disk:
            self._disk = quota.default_limit(self._folders.home)
        return self

    def create(self, session: str, model: str, engine: str, carried: Carried | None = None) -> SessionFiles:
        """Create the files of a new session; `carried` makes it an official one. Raises Exhausted."""
        if not self._folders.home.is_dir():  # removed while the server runs
            try:
                create_private(self._folders.home)
            except ListenError as error:
                raise Exhausted(error.message) from error
        folder = self._folders.home / session
        with translate_disk_errors():
            folder.mkdir(mode=0o700, exist_ok=True)
            manifest = Manifest(session, model, engine, carried=carried)
            # An official session has operations before its first image.
            manifest = manifest if carried is None else journal.next_journal(manifest)
            files = SessionFiles(self._folders, manifest, _lock(folder))
        files.save(files.manifest)
        return files

    def find(self, session: str) -> SessionFiles | None:
        """Return the session's files, or None if there is no such session.

        Damaged files are renamed, and None is returned. Raises Conflict if another server has the session.
        """
        folder = self._folders.home / session
        if not SESSION_ID.fullmatch(session) or not folder.is_dir():
            return None
        with translate_disk_errors():
            lock = _lock(folder)
        try:
            return self._load(folder, lock)
        except FileNotFoundError:
            lock.close()
            return None
        except DamagedFile as error:
            self._set_aside(session, str(error))
            lock.close()
            return None
        except BaseException:
            lock.close()
            raise

    def _load(self, folder: Path, lock: IO[str]) -> SessionFiles:
        manifest = journal.decode_manifest((folder / MANIFEST_FILE).read_bytes())
        if manifest.id != folder.name or not _has_complete_image(manifest):
            raise DamagedFile("its image is gone")
        files = SessionFiles(self._folders, manifest, lock)
        files.recover()
        return files

    def list_with_images(self, limit: int) -> list[StoredManifest]:
        """Return the sessions that have an image, those that were changed last first; nothing is locked or changed."""
        found: list[StoredManifest] = []
        folders: list[tuple[float, Path]] = []
        with contextlib.suppress(OSError):  # the sessions' folder was removed while the server runs
            folders = sorted(((_changed(folder), folder) for folder in self._list()), reverse=True)
        for changed, folder in folders:
            with contextlib.suppress(OSError, DamagedFile):
                manifest = journal.decode_manifest((folder / MANIFEST_FILE).read_bytes())
                if manifest.image is not None and manifest.id == folder.name:
                    found.append(StoredManifest(manifest, folder, changed))
            if len(found) == limit:
                break
        return found

    def set_aside(self, files: SessionFiles, reason: str) -> None:
        """Rename the folder of a session that can't be continued, and release the session."""
        self._set_aside(files.manifest.id, reason)
        files.release()

    def _set_aside(self, session: str, reason: str) -> None:
        log.warning("the files of session %s are damaged and set aside: %s", session[:8], reason)
        folder = self._folders.home / session
        with contextlib.suppress(OSError):
            folder.rename(folder.with_name(DAMAGED_PREFIX + session))

    def remove_expired(self, in_use: tuple[str, ...]) -> None:
        """Remove the sessions that were not used for longer than the time to live, except those `in_use`.

        A session is removed when it is found expired twice, a day apart: a clock that is wrong at one look is no
        reason to remove anything.
        """
        limit = time.time() - self.ttl
        folders = [folder for folder in self._list() if folder.name not in in_use]
        for name in self._sightings.confirm({folder.name for folder in folders if _last_used(folder) < limit}):
            with contextlib.suppress(RequestError, OSError), _lock(self._folders.home / name):
                log.info("session %s was not used for long: its files are removed", name[:8])
                remove_files(self._folders, name)
        if self._folders.earlier is not None and self._folders.earlier.is_dir():
            for folder in self._folders.earlier.iterdir():
                if not (self._folders.home / folder.name).exists():
                    shutil.rmtree(folder, ignore_errors=True)
        self.copies.sweep()

    def _list(self) -> list[Path]:
        """Return the folders of the sessions, damaged ones included."""
        found = self._folders.home.iterdir()
        return [folder for folder in found if folder.is_dir() and folder.name != COPIES_FOLDER]

    def count(self) -> int:
        """Return how many sessions with an image are stored."""
        try:
            return sum(any(folder.glob(f"{IMAGE_PREFIX}*")) for folder in self._list())
        except OSError:  # removed while the server runs
            return 0

    def make_room(self, needed: int, in_use: Collection[str] = ()) -> None:
        """Let so many more bytes fit within what sessions may take on the disk; else raises NoRoom and removes nothing.

        The sessions that no server has in memory are removed until they fit, the one unused for longest first.
        `in_use` names those of this server.
        """
        surplus = quota.taken(self._folders.roots) + needed - self._disk
        if surplus <= 0:
            return
        folders = sorted(self._list(), key=_last_used)
        unused = [folder for folder in folders if folder.name not in in_use and _is_free(folder)]
        chosen = quota.choose_unused(surplus, unused, set(folders) - set(unused))
        if not chosen:
            raise NoRoom(
                f"The image needs {max(0, needed) / 1e6:.0f} MB on the server's disk, and the sessions that are in use "
                f"leave too little of the {self._disk / 1e9:.1f} GB that all may take. Start the server with a larger "
                "--session-disk."
            )
        for folder in chosen:
            with contextlib.suppress(RequestError, OSError), _lock(folder):
                log.warning("session %s is removed: the sessions take what --session-disk allows", folder.name[:8])
                remove_files(self._folders, folder.name)


def _is_free(folder: Path) -> bool:
    """Return whether no server has the session."""
    with contextlib.suppress(RequestError, OSError), _lock(folder):
        return True
    return False


def _has_complete_image(manifest: Manifest) -> bool:
    """Return whether the session has no image, or its file has the right length and belongs to this user."""
    return manifest.image is None or has_own_file(Path(manifest.image.path), manifest.image.bytes)


def _last_used(folder: Path) -> float:
    """Return the latest time of the folder and its files; infinity for a folder that has gone meanwhile.

    An image's file may be that of other sessions too, so its time says nothing.
    """
    try:
        files = (path for path in folder.iterdir() if not path.name.startswith(IMAGE_PREFIX))
        return max(path.stat().st_mtime for path in (folder, *files))
    except OSError:
        return math.inf


def _changed(folder: Path) -> float:
    """Return when the session's manifest was written; 0 for one that has none (any more)."""
    try:
        return (folder / MANIFEST_FILE).stat().st_mtime
    except OSError:
        return 0.0


def _lock(folder: Path) -> IO[str]:
    """Lock the session for this server; the system releases the lock when the process ends for any reason."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    lock = os.fdopen(descriptor, "w", encoding="utf-8")
    if not locks.try_lock(lock):
        lock.close()
        raise Conflict(
            "This session is in use by another server of yours on the same machine. Use it there, or end it."
        )
    return lock
