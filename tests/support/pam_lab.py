"""An sshd that asks PAM, with a service of its own: passwords, one-time codes, reasons, texts and expired passwords.

Needs root: it makes a user and writes one file into /etc/pam.d, which is removed afterwards.
"""

from __future__ import annotations

import contextlib
import getpass
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dls.demo.sshd import find_sshd
from tests.support.accounts import account
from tests.support.openssh import Server, serving

SERVICES = Path("/etc/pam.d")
GOOGLE = "pam_google_authenticator.so"
"""PAM module that asks for one-time codes (on Debian: libpam-google-authenticator)."""
PASSWORD_LINE = "auth required pam_unix.so nodelay"
USUAL = ("account required pam_unix.so", "session required pam_permit.so", "password required pam_unix.so")


@dataclass(frozen=True)
class PamLab:
    """A server that asks PAM, and an account of its."""

    server: Server
    user: str
    folder: Path

    def new_code(self) -> str:
        """Return a one-time code that has not been used."""
        code = f"{10_000_000 + secrets.randbelow(90_000_000)}"
        path = self.folder / self.user
        text = path.read_text() if path.exists() else ""
        lines = text.splitlines() or ["JBSWY3DPEHPK3PXP", '" WINDOW_SIZE 3', '" TOTP_AUTH']
        write_secret(path, "\n".join([*lines, code]) + "\n")
        return code


def write_secret(path: Path, text: str) -> None:
    """Write the file of the one-time codes as its PAM module wants it: readable by root alone."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o400)
    path.write_text(text)


def code_line(folder: Path) -> str:
    """Return the line of a service that asks for a one-time code."""
    return f"auth required {GOOGLE} secret={folder}/${{USER}} user=root allowed_perm=0400"


def script_line(folder: Path, kind: str, script: str) -> str:
    """Return the line of a service that runs a script, whose output the person sees and whose status counts."""
    path = folder / f"{kind}.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{kind} required pam_exec.so quiet stdout {path}"


def has_module(name: str) -> bool:
    """Whether a PAM module is installed."""
    return any(Path(place).glob(f"**/security/{name}") for place in ("/lib", "/usr/lib", "/lib64", "/usr/lib64"))


@contextlib.contextmanager
def pam_lab(folder: Path, service: Sequence[str], *options: str, own: bool = True) -> Iterator[PamLab]:
    """Run an sshd whose PAM service has these lines, which stand before the usual ones for account and session.

    Without an account of its `own`, the lab is for the current user, whose password it does not know.
    """
    name = f"sshd-{folder.name}"
    kinds = {line.split()[0] for line in service}
    lines = [*service, *(line for line in USUAL if line.split()[0] not in kinds)]
    path = SERVICES / name
    path.write_text("".join(f"{line}\n" for line in lines))
    usual = (
        "PermitRootLogin yes",
        "UsePAM yes",
        "KbdInteractiveAuthentication yes",
        "AuthenticationMethods keyboard-interactive",
    )
    program = folder / name
    program.symlink_to(find_sshd() or "sshd")  # sshd asks the PAM service that is called as it is
    names_service = f"PAMServiceName {name}"
    if subprocess.run([program, "-o", names_service, "-T"], capture_output=True, check=False).returncode == 0:
        options = (*options, names_service)  # since OpenSSH 9.8, where another program makes the login
    try:
        with (
            account("dlsways") if own else contextlib.nullcontext(getpass.getuser()) as user,
            serving(folder / "pam", *options, *usual, user=user, program=str(program)) as server,
        ):
            yield PamLab(server, user, folder)
    finally:
        path.unlink()
