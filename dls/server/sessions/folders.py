"""The folders in which a server stores its sessions."""

from __future__ import annotations

import logging
import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dls.contract import second_session_folder, session_folders
from dls.errors import ListenError

log = logging.getLogger("dls.server")


@dataclass(frozen=True)
class Folders:
    """The folders that hold one folder per session.

    `home` holds everything. `earlier`, if there is one, is a memory-backed folder to which releases before wrote
    images: they are read and removed there, and none are added, because logging out may remove the files (logind's
    RemoveIPC).
    """

    home: Path
    earlier: Path | None = None

    @property
    def roots(self) -> tuple[Path, ...]:
        """Both folders."""
        return (self.home, self.earlier) if self.earlier else (self.home,)

    def create(self) -> None:
        """Create the folder for its user only; raises ListenError."""
        create_private(self.home)


def choose_folders(session_dir: Path | None, name: str) -> Folders:
    """Return the folders for the sessions of the server of that name.

    They are in `session_dir` if the user chose one. Otherwise they are on a local disk and not in the home directory,
    which may be on NFS, unless another user has taken the folder's name.
    """
    if sys.platform == "win32":
        return Folders((session_dir or Path(tempfile.gettempdir())) / "dls" / name)
    uid = os.getuid()
    if session_dir is not None:
        return Folders(Path(session_folders(uid, name, str(session_dir.expanduser().absolute()))[0]))
    home, earlier = map(Path, session_folders(uid, name))
    if not home.parents[1].is_dir():
        home = Path(session_folders(uid, name, tempfile.gettempdir())[0])
    second = Path(second_session_folder(str(Path.home()), name))
    if second.is_dir() or _is_foreign(home.parent):
        log.warning("sessions are stored in %s, because another user has or had %s", second, home.parent)
        home = second
    return Folders(home, None if _is_foreign(earlier.parent) else earlier)


def _is_foreign(folder: Path) -> bool:
    """Whether something that is not a folder of this user has the folder's name."""
    try:
        status = folder.lstat()
    except OSError:
        return False
    return not stat.S_ISDIR(status.st_mode) or (sys.platform != "win32" and status.st_uid != os.getuid())


def create_private(root: Path) -> None:
    """Create a folder and its parent for this user only; raises ListenError if it belongs to another user."""
    try:
        for folder in (root.parent, root):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
            if folder is root or folder.name.startswith("dls-"):
                if sys.platform != "win32" and (folder.is_symlink() or status.st_uid != os.getuid()):
                    raise ListenError(f"{folder} belongs to somebody else.", "Name another folder with --session-dir.")
                folder.chmod(0o700)
    except OSError as error:
        raise ListenError(
            f"Sessions can't be kept in {root}: {error.strerror}.", "Name another folder with --session-dir."
        ) from error


def has_own_file(path: Path, length: int) -> bool:
    """Return whether there is a regular file of this user and of that length."""
    try:
        status = path.lstat()
    except OSError:
        return False
    is_own = stat.S_ISREG(status.st_mode) and (sys.platform == "win32" or status.st_uid == os.getuid())
    return is_own and status.st_size == length
