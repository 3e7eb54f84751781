"""OpenSSH's own programs for the labs of the ways in: keys, servers with any configuration, and their logs."""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dls.demo.sshd import PRIVILEGE_SEPARATION, find_sshd
from tests.support.processes import free_port, wait_until_listening

ACCEPTED = re.compile(r"^Accepted \S+ for ", re.MULTILINE)
"""A line of sshd's log for one login that succeeded; the steps of one login with several are not counted."""


@dataclass(frozen=True)
class Server:
    """A running sshd on loopback, with all its files in a folder."""

    folder: Path
    port: int
    user: str

    @property
    def log(self) -> str:
        """What sshd has logged so far, at the level VERBOSE."""
        path = self.folder / "sshd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def logins(self) -> int:
        """How many logins have succeeded so far."""
        return len(ACCEPTED.findall(self.log))

    @property
    def key(self) -> Path:
        """A private key without a passphrase that the server accepts."""
        return self.folder / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file with the server's key."""
        return self.folder / "known_hosts"

    def section(self, name: str = "lab", *lines: str, key: bool = True, known: bool = True) -> str:
        """Return a Host section for the server; the lines stand first, so they win over the usual ones.

        Without `key` no key file is named, without `known` no known_hosts file.
        """
        usual = ["HostName 127.0.0.1", f"Port {self.port}", f"User {self.user}", "GlobalKnownHostsFile /dev/null"]
        usual += [f"IdentityFile {self.key}", "IdentitiesOnly yes"] if key else []
        usual += [f"UserKnownHostsFile {self.known_hosts}"] if known else []
        return "".join(f"{line}\n" for line in (f"Host {name}", *(f"  {line}" for line in (*lines, *usual))))


@contextlib.contextmanager
def serving(
    folder: Path, *options: str, user: str = "", program: str = "", env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run an sshd with these lines of sshd_config, which win over the usual ones, and its files in a new folder.

    `user` is whom the client's configuration names, by default the current user. `program` is another path of sshd,
    and `env` is added to its environment.
    """
    folder.mkdir(mode=0o755)
    make_key(folder / "host_key")
    make_key(folder / "id_ed25519")
    (folder / "authorized_keys").write_bytes((folder / "id_ed25519.pub").read_bytes())
    server = Server(folder, free_port(), user or getpass.getuser())
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public_key(folder / 'host_key')}\n")
    (folder / "sshd_config").write_text("".join(f"{line}\n" for line in (*options, *_usual_options(server))))
    command = [program or find_sshd() or "sshd", "-D", "-f", str(folder / "sshd_config"), "-E", f"{folder}/sshd.log"]
    with _privilege_separation(), running(command, env) as process:
        wait_until_listening(server.port, process)
        yield server


def _usual_options(server: Server) -> list[str]:
    # From 9.8 on, sshd turns away clients whose logins fail often, which those of the tests do.
    return [
        *(["PerSourcePenalties no"] if client_version() >= (9, 8) else []),
        "MaxStartups 200",
        f"Port {server.port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {server.folder}/host_key",
        "PidFile none",
        f"AuthorizedKeysFile {server.folder}/authorized_keys",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "Subsystem sftp internal-sftp",
        "LogLevel VERBOSE",
    ]


@contextlib.contextmanager
def _privilege_separation() -> Iterator[None]:
    """Make the folder that sshd wants when root starts it, where no system service has made it."""
    if os.geteuid() == 0:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    yield


@contextlib.contextmanager
def running(command: list[str], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, with this added to its environment, until the block ends."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def make_key(path: Path, kind: str = "ed25519", *, passphrase: str = "", more: tuple[str, ...] = ()) -> Path:
    """Make a key pair with ssh-keygen; returns the private key's path."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path), *more]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return path


def public_key(path: Path) -> str:
    """Return the type and the key, without the comment, of the public key beside a private one."""
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


def write(folder: Path, text: str) -> Path:
    """Write the configuration of the client into the lab's folder; returns its path."""
    config = folder / "config"
    config.write_text(text)
    return config


def allow(server: Server, key: Path) -> None:
    """Let the server accept one more key."""
    with (server.folder / "authorized_keys").open("a") as file:
        file.write(Path(f"{key}.pub").read_text())


@functools.cache
def client_version() -> tuple[int, int]:
    """Return the version of OpenSSH's client, such as (9, 2)."""
    text = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    found = re.match(r"OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2])
