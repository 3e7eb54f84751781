"""What the scripts refuse to use, since another user of the host made it or can change it, as errors."""

from __future__ import annotations

import shlex

from dls.errors import HostError
from dls.remote.ssh.connection import Completed

HASH_MISMATCH = 65
"""Exit status of the installer when a package is not the locked one."""
OTHER_HOST = 70
"""Exit status of the scripts when another host has claimed the place for the run directories meanwhile."""
FOREIGN_RUN_DIR = 71
"""Exit status of the scripts when another user made the run directory first."""
NO_RUN_DIR = 72
"""Exit status of the scripts when the run directory can't be made."""
UNTRUSTED = 77
"""Exit status of the scripts when a directory is another user's or open to others; the last line names it."""
CODE_CHANGED, ENVIRONMENT_CHANGED = 78, 79
"""Exit statuses of the launch script when the code, or what is installed, is not as it was made."""


def raise_refusal(where: str, completed: Completed, run_dir: str) -> None:
    """Raise HostError for what the script refused to use; do nothing when it refused nothing."""
    if completed.status == FOREIGN_RUN_DIR:
        raise _foreign(where, run_dir)
    if completed.status == OTHER_HOST:
        raise HostError(f"Another host uses {run_dir} since a moment ago.", "Run the command again.")
    if completed.status == NO_RUN_DIR:
        raise HostError(
            f"{run_dir} can't be made on {where}, and neither can a directory in /tmp, /var/tmp or /dev/shm.",
            "Name a directory on a local disk of the host, which is neither full nor read-only, with --remote-dir.",
        )
    if completed.status != UNTRUSTED:
        return
    fault, _, path = completed.stdout.rstrip("\n").rpartition("\n")[2].partition("\t")
    if fault != "loose":
        raise _foreign(where, path)
    raise HostError(
        f"Other users of {where} can write to {path}.",
        f"If nobody else put anything there, close it: chmod go-w {shlex.quote(path)}. "
        "Otherwise name another directory with --remote-dir.",
    )


def _foreign(where: str, path: str) -> HostError:
    return HostError(
        f"{path} on {where} belongs to somebody else, or is no directory.",
        "Name a directory of your own with --remote-dir.",
    )
