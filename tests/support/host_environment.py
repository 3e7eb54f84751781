"""An environment on the host that borrows the packages of the tests: no minutes of installing, and no network."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import venv
from pathlib import Path

from dls.remote.host.packages import ENVIRONMENT_FORMAT, requirements
from dls.remote.host.scripts import verify

TORCH_BUILDS = ("cpu", "cuda")
"""Ends of the names of environments with torch: `dls connect` looks for one of them, by the host's GPUs."""


def lend_packages(remote_dir: str, engine: str = "nninteractive") -> None:
    """Make the environments that `dls connect` looks for in the remote directory of this machine.

    They are what the installer leaves there, except that their packages are those of the tests.
    """
    needed = requirements(engine)
    platform = f"{os.uname().sysname}-{os.uname().machine}".lower()
    previous = os.umask(0o077)
    try:
        for build in TORCH_BUILDS:
            folder = Path(remote_dir) / "env" / f"{needed.key}-{platform}-{build}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            venv.create(folder, symlinks=True)
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            borrowed = folder / "lib" / version / "site-packages" / "borrowed.pth"
            borrowed.write_text(f"{sysconfig.get_path('purelib')}\n")
            text = json.dumps({"format": ENVIRONMENT_FORMAT, "packages": needed.packages, "lock": None})
            (folder / "complete.json").write_text(verify.complete(str(folder), text, "ranges"))
    finally:
        os.umask(previous)
