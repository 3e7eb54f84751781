"""The folders in which a server stores its sessions."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dls.contract import session_folders
from dls.errors import ListenError


@dataclass(frozen=True)
class Folders:
    """The folders that hold one folder per session.

    `home` holds the manifests; `fast`, if there is one, is memory-backed and holds images while it has space.
    """

    home: Path
    fast: Path | None = None

    @property
    def roots(self) -> tuple[Path, ...]:
        """Both folders, the fast one first."""
        return (self.fast, self.home) if self.fast else (self.home,)

    def create(self) -> None:
        """Create the folders for their user only; raises ListenError."""
        for root in self.roots:
            create_private(root)


def choose_folders(session_dir: Path | None, name: str) -> Folders:
    """Return the folders for the sessions of the server of that name.

    They are in `session_dir` if the user chose one. Otherwise they are on local disks and never in a home directory,
    which may be on NFS.
    """
    if sys.platform == "win32":
        return Folders((session_dir or Path(tempfile.gettempdir())) / "dls" / name)
    uid = os.getuid()
    if session_dir is not None:
        return Folders(Path(session_folders(uid, name, str(session_dir.expanduser().absolute()))[0]))
    home, fast = map(Path, session_folders(uid, name))
    local, shared = home.parents[1], fast.parents[1]
    if not local.is_dir():
        home = Path(session_folders(uid, name, tempfile.gettempdir())[0])
    return Folders(home, fast if shared.is_dir() and os.access(shared, os.W_OK) else None)


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
