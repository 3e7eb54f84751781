"""User accounts of this computer, for logins that the system itself decides on: passwords, PAM, login shells."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PASSWORD = "tr0ub4dor&3"
"""Password of the accounts."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, so it needs root")


@contextlib.contextmanager
def reserved(name: str) -> Iterator[None]:
    """Keep other runs of the tests on this machine from making or removing the user meanwhile."""
    with (Path(tempfile.gettempdir()) / f"dls-account-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def account(name: str, *, shell: str = "/bin/sh", home: Path | None = None) -> Iterator[str]:
    """Make a user with the password PASSWORD, and remove it and its processes afterwards; yields its name."""
    place = ["-d", str(home)] if home else []
    with reserved(name):
        subprocess.run(["userdel", "-rf", name], check=False, capture_output=True)
        if home:
            shutil.rmtree(home, ignore_errors=True)  # left behind by a run that was killed
        subprocess.run(["useradd", "-m", *place, "-s", shell, name], check=True, capture_output=True)
        try:
            set_password(name, PASSWORD)
            yield name
        finally:
            subprocess.run(["pkill", "-KILL", "-u", name], check=False)
            for folder in ("/tmp", "/var/tmp"):
                shutil.rmtree(f"{folder}/dls-{pwd.getpwnam(name).pw_uid}", ignore_errors=True)
            subprocess.run(["userdel", "-rf", name], check=False, capture_output=True)


def set_password(name: str, password: str) -> None:
    """Give the user this password."""
    subprocess.run(["chpasswd"], input=f"{name}:{password}", text=True, check=True)
