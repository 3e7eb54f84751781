"""Private folders on this computer for a socket, and for a program that `ssh` is to run."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from pathlib import Path

from dls.errors import ConnectError
from dls.remote.host.probe import SOCKET_PATH_LIMIT

PROBE = "#!/bin/sh\n"


def has_unix_sockets() -> bool:
    """Whether Python has Unix sockets on this system: not on Windows."""
    return hasattr(socket, "AF_UNIX")


def make_private_folder(prefix: str, *, runs_programs: bool = False) -> Path:
    """Make a folder that only its user can enter, with room in its path for a socket; raises ConnectError.

    `runs_programs` passes over file systems from which no program may be started (noexec).
    """
    for base in (None, "/tmp", os.environ.get("XDG_RUNTIME_DIR")):  # noqa: S108 - mkdtemp makes a folder of one's own
        try:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        except OSError:
            continue
        if len(os.fsencode(folder / "socket")) <= SOCKET_PATH_LIMIT and not (runs_programs and _is_noexec(folder)):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
    raise ConnectError(
        f"{tempfile.gettempdir()} is no place for a socket and a program.",
        "Name a folder with a short path on a disk that runs programs: TMPDIR.",
    )


def _is_noexec(folder: Path) -> bool:
    program = folder / "probe"
    program.write_text(PROBE, encoding="utf-8")
    program.chmod(0o700)
    is_runnable = os.access(program, os.X_OK)
    program.unlink()
    return not is_runnable
