"""A laptop on which `dls connect ann@gpuhost` works as it stands in the documentation, and the host behind it."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dls.demo import sshd
from tests.support.accounts import account

ADDRESS = "127.0.0.22"
"""Where the host listens on SSH's own port, which no other server has on this loopback address."""
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Laptop:
    """The home of somebody who can log in as `ann@gpuhost`, and the environment of their programs."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables in which `dls` and `ssh` find this laptop's files alone."""
        path = f"{self.home}/bin:{os.environ['PATH']}"
        return {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def laptop() -> Iterator[Laptop]:
    """Yield a laptop; the user `ann` is made on this computer meanwhile, so it takes root."""
    folder = Path(tempfile.mkdtemp(prefix="dls-laptop-"))
    folder.chmod(0o755)
    home = folder / "home"
    (home / "bin").mkdir(parents=True)
    (home / ".ssh").mkdir(mode=0o700)
    try:
        with account("ann", shell="/bin/bash"), sshd.running(folder, options=f"ListenAddress {ADDRESS}:22"):
            (folder / "authorized_keys").chmod(0o644)
            known = folder / "known_hosts"
            known.write_text(f"gpuhost {known.read_text().partition(' ')[2]}")
            shutil.copy(folder / "id_ed25519", home / ".ssh" / "id_lab")
            (home / ".ssh" / "config").write_text(
                f"Host gpuhost gateway\n  User ann\n  HostName {ADDRESS}\n  HostKeyAlias gpuhost\n"
                f"  IdentityFile {home}/.ssh/id_lab\n  IdentitiesOnly yes\n  UserKnownHostsFile {known}\n"
            )
            _write_program(home / "bin" / "dls", f"{shlex.quote(sys.executable)} -m dls")
            # ssh reads the configuration of the user that the system knows, wherever HOME is.
            _write_program(home / "bin" / "ssh", f"{shutil.which('ssh')} -F {home}/.ssh/config")
            yield Laptop(home)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_program(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
