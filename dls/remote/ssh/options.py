"""The options of a login, and the arguments of `ssh` that mean the same."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dls.contract import DEFAULT_REMOTE_DIR

CARRIERS = ("auto", "paramiko", "openssh")
"""What may carry the connection: paramiko by itself, OpenSSH's `ssh` as a child process, or whichever is needed."""


def join_words(words: Sequence[str], system: str = sys.platform) -> str:
    """Return a command line for people to copy: quoted for a shell, on Windows as PowerShell and cmd both take it."""
    return subprocess.list2cmdline(words) if system == "win32" else shlex.join(words)


@dataclass(frozen=True)
class LoginOptions:
    """Options of every command that logs in to a host."""

    ssh_config: Path | None = None
    identities: tuple[Path, ...] = ()
    ssh_port: int | None = None
    accept_new_host_key: bool = False
    password: str | None = field(default=None, repr=False)
    remote_dir: str = DEFAULT_REMOTE_DIR
    ssh_options: tuple[str, ...] = ()
    """Settings as `ssh -o` takes them, such as `IdentitiesOnly=yes`; they win over the configuration file."""
    user: str | None = None
    jump: str | None = None
    """Jump hosts, separated by commas, nearest to this computer first; `none` for none."""
    address_family: str | None = None
    """`inet` or `inet6`; by default both."""
    carrier: str = "auto"
    """One of `CARRIERS`."""
    via: str | None = None
    """Command that runs the command appended to it on the host, in place of SSH: `docker exec -i NAME`."""
    through_exec: bool = False
    """Whether a host that forbids forwarding may be served through a command's standard input and output."""
    save_password: bool = False
    """Whether a password that is typed is kept in the system's keychain."""
    verbose: int = 0
    """How much `ssh` tells of its work on standard error: 0 to 3."""

    def command(self, verb: str, target: str) -> str:
        """Return the command line of another `dls` command (`verb`) for the same host, with the same options."""
        words = ["dls", *verb.split()]
        words += ["-F", str(self.ssh_config)] if self.ssh_config else []
        words += [word for path in self.identities for word in ("-i", str(path))]
        words += ["--ssh-port", str(self.ssh_port)] if self.ssh_port else []
        words += ["-l", self.user] if self.user else []
        words += ["-J", self.jump] if self.jump else []
        words += [word for option in self.ssh_options for word in ("-o", option)]
        words += [{"inet": "-4", "inet6": "-6"}[self.address_family]] if self.address_family else []
        words += ["--carrier", self.carrier] if self.carrier != "auto" else []
        words += ["--through-exec"] if self.through_exec else []
        words += ["--via", self.via] if self.via else []
        words += ["--remote-dir", self.remote_dir] if self.remote_dir != DEFAULT_REMOTE_DIR else []
        return join_words([*words, target])

    def ssh_arguments(self, user: str = "", port: int | None = None) -> list[str]:
        """Return the options as arguments of `ssh`; user and port are those of the destination that was typed."""
        words = self.file_arguments
        words += [word for option in self.ssh_options for word in ("-o", option)]
        words += [word for path in self.identities for word in ("-i", str(path))]
        words += ["-l", self.user or user] if self.user or user else []
        words += ["-p", str(self.ssh_port or port)] if self.ssh_port or port else []
        words += ["-J", self.jump] if self.jump else []
        words += [{"inet": "-4", "inet6": "-6"}[self.address_family]] if self.address_family else []
        return words

    @property
    def file_arguments(self) -> list[str]:
        """The argument of `ssh` that names the configuration file; `ssh` gives it to jump hosts too, and no other."""
        return ["-F", str(self.ssh_config)] if self.ssh_config else []
