"""Whether this computer has a Kerberos ticket, with which OpenSSH's `ssh` could log in (GSSAPI)."""

from __future__ import annotations

import os
import shutil
import subprocess

KLIST_SECONDS = 2.0
"""Longest time for `klist`, which may look for a cache in a service that hangs."""


def has_ticket() -> bool:
    """Whether `klist -s` finds a ticket that is valid; False where there is no MIT or Heimdal `klist`."""
    program = shutil.which("klist") if os.name != "nt" else None  # that of Windows has no -s
    if program is None:
        return False
    try:
        done = subprocess.run(
            [program, "-s"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=KLIST_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
