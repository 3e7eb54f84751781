"""A host behind a link that can be broken: OpenSSH in a network namespace, and `dls connect` in front of it.

Needs root, iproute2 and iptables. Everything that the lab creates is removed again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from dls.demo import sshd
from dls.demo.sshd import _write_key
from tests.support.connect_process import children_of, engine_of, server_of
from tests.support.slow_link import slow_link

NAME = "lab-gpuhost"
NETWORK = f"10.213.{20 + os.getpid() % 200}"
"""Addresses of this run alone: another one beside it may have a lab too."""
CLIENT, HOST, OTHER = f"{NETWORK}.1", f"{NETWORK}.2", f"{NETWORK}.3"


def is_possible() -> bool:
    """Whether this machine has what a lab needs and permits it."""
    if os.getuid() != 0 or not all(shutil.which(name) for name in ("ip", "iptables", "unshare")):
        return False
    space = f"dls-try-{os.getpid()}"
    tries = (
        ["ip", "netns", "add", space],
        ["ip", "netns", "exec", space, "iptables", "-I", "INPUT", "-j", "DROP"],
        ["unshare", "-m", "true"],
    )
    try:
        return all(subprocess.run(words, capture_output=True).returncode == 0 for words in tries)
    finally:
        subprocess.run(["ip", "netns", "del", space], capture_output=True)


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def remove_abandoned_labs() -> None:
    """Remove the labs of test runs that were killed: theirs has the same addresses, and would answer for this one."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for space in re.findall(r"^dls-(\d+)\b", listed, re.M):
        if Path(f"/proc/{space}").exists():
            continue
        for pid in subprocess.run(
            ["ip", "netns", "pids", f"dls-{space}"], capture_output=True, text=True
        ).stdout.split():
            with contextlib.suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", f"dls-{space}"], capture_output=True)


class Lab:
    """The host, its SSH server and the link to it."""

    def __init__(self, folder: Path, remote_dir: str, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.remote_dir = remote_dir
        self.options = options
        """Options of each `dls connect`."""
        self.space = f"dls-{os.getpid()}"
        self.client_end, self.host_end = f"dn{os.getpid() % 10**7}", f"df{os.getpid() % 10**7}"
        self.config = folder / "ssh_config"
        self.hosts = folder / "hosts"
        self._sshd: subprocess.Popen[bytes] | None = None

    @classmethod
    @contextlib.contextmanager
    def create(cls, remote_dir: str, *options: str) -> Iterator[Lab]:
        """Create the lab, and remove it at the end."""
        lab = cls(Path(tempfile.mkdtemp(prefix="dls-lab-")), remote_dir, options)
        try:
            lab._build()
            yield lab
        finally:
            lab._clear()

    def _build(self) -> None:
        remove_abandoned_labs()
        run("ip", "netns", "add", self.space)
        run("ip", "link", "add", self.client_end, "type", "veth", "peer", "name", self.host_end, "netns", self.space)
        run("ip", "addr", "add", f"{CLIENT}/24", "dev", self.client_end)
        run("ip", "link", "set", self.client_end, "up")
        for address in (HOST, OTHER):
            self.inside("ip", "addr", "add", f"{address}/24", "dev", self.host_end)
        self.inside("ip", "link", "set", self.host_end, "up")
        self.inside("ip", "link", "set", "lo", "up")
        key, host_key = (_write_key(self.folder / name) for name in ("id_ed25519", "host_key"))
        (self.folder / "authorized_keys").write_text(key + "\n")
        (self.folder / "known_hosts").write_text(f"{NAME} {host_key}\n")
        self.write_config()
        self.move_to(HOST)
        self.start_sshd()

    def write_config(self, more: str = "") -> None:
        """Write the SSH configuration of the client."""
        self.config.write_text(
            f"Host {NAME}\n  User root\n  IdentityFile {self.folder}/id_ed25519\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.folder}/known_hosts\n{more}"
        )

    @contextlib.contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Delay every byte by so many seconds in each direction."""
        with slow_link(HOST, 22, seconds) as port:
            self.write_config(f"  HostName 127.0.0.1\n  Port {port}\n  HostKeyAlias {NAME}\n")
            yield
        self.write_config()

    def move_to(self, address: str) -> None:
        """Let the host's name resolve to another address."""
        self.hosts.write_text(f"127.0.0.1 localhost\n{address} {NAME}\n")

    def inside(self, *words: object) -> None:
        """Run a program in the host's network namespace."""
        run("ip", "netns", "exec", self.space, *words)

    def start_sshd(self, options: str = "") -> None:
        config = self.folder / "sshd_config"
        config.write_text(
            f"{options}\nPort 22\nListenAddress 0.0.0.0\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        program = sshd.find_sshd()
        command = ["ip", "netns", "exec", self.space, program, "-D", "-f", config, "-E", self.folder / "log"]
        self._sshd = subprocess.Popen([str(word) for word in command], start_new_session=True)
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, 22), 1).close()
                return
            time.sleep(0.05)

    def sshd_children(self) -> list[int]:
        """Return the processes of sshd that serve connections."""
        assert self._sshd is not None
        return children_of(self._sshd.pid)

    def signal_sshd(self, number: int) -> None:
        for pid in self.sshd_children():
            with contextlib.suppress(OSError):
                os.kill(pid, number)

    def stop_sshd(self) -> None:
        assert self._sshd is not None
        self.signal_sshd(signal.SIGKILL)
        self._sshd.kill()
        self._sshd.wait()

    @contextlib.contextmanager
    def filtered(self, *rule: object) -> Iterator[None]:
        """Apply a rule of iptables to the packets that reach the host."""
        self.inside("iptables", "-I", "INPUT", "-i", self.host_end, *rule)
        try:
            yield
        finally:
            self.inside("iptables", "-D", "INPUT", "-i", self.host_end, *rule)

    @contextlib.contextmanager
    def cable_out(self) -> Iterator[None]:
        run("ip", "link", "set", self.client_end, "down")
        try:
            yield
        finally:
            run("ip", "link", "set", self.client_end, "up")

    @property
    def session_folders(self) -> list[Path]:
        """Folders in which the server keeps sessions."""
        from tests.conftest import kept_in

        return kept_in(self.remote_dir)

    def server(self) -> int:
        """Return the process id of the server that runs now."""
        return server_of(self.remote_dir)

    def engine(self) -> int:
        """Return the process id of the engine that runs now."""
        return engine_of(self.remote_dir)

    def _clear(self) -> None:
        for state in Path(self.remote_dir).glob("run/*/state.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                os.kill(int(json.loads(state.read_text())["pid"]), signal.SIGKILL)
        if self._sshd is not None:
            self.stop_sshd()
        subprocess.run(["ip", "netns", "del", self.space], capture_output=True)
        subprocess.run(["ip", "link", "del", self.client_end], capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
