"""What the tests of closed hosts share: the ways, `dls` on a laptop, and a click there."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.closed.lab import FORWARDING, USER, Lab
from tests.support.connect_process import CONNECT, ConnectProcess
from tests.support.connecting import click_once
from tests.support.processes import free_port

FORBID_ALL = ("tcp-no", "tcp-remote", "disabled")
"""Hosts that let no connection be forwarded: they are used through a command's input and output, with consent."""
INSTALL_SECONDS = 240.0


@dataclass(frozen=True)
class Way:
    """From a laptop to a host whose SSH server allows so much."""

    host: str = "dropping"
    forwarding: str = "default"
    laptop: str = "plain"

    def __str__(self) -> str:
        return f"{self.laptop}-{self.host}-{self.forwarding}"

    @property
    def target(self) -> str:
        """The host's name in the laptop's SSH configuration."""
        return f"{self.host}-{self.forwarding}"

    @property
    def consent(self) -> list[str]:
        """The option that a host needs which forbids all forwarding."""
        return ["--through-exec"] if self.forwarding in FORBID_ALL else []


class Laptop:
    """`dls` on one of the lab's laptops, and a directory of its own on the host that it connects to."""

    def __init__(self, lab: Lab, way: Way, folder: Path, *, user: str = USER) -> None:
        self.lab, self.way, self.folder = lab, way, folder
        self.node = lab.laptops[way.laptop]
        self.node_of_host = lab.hosts[way.host]
        self.env = lab.environment(way.laptop)
        name = f"dls-{secrets.token_hex(4)}"
        # The administrator's home is this machine's.
        self.kept = (lab.folder if user == "root" else lab.home(way.host, user)) / name
        """Where the directory is on this machine."""
        self.remote_dir = str(self.kept) if user == "root" else f"/home/{user}/{name}"
        self.options = ["-F", str(lab.config), "--remote-dir", self.remote_dir]
        self.options += [] if user == USER else ["--user", user]

    def words(self, *arguments: object) -> list[str]:
        """Return the command that runs `dls` with these arguments on the laptop."""
        return self.node.words(*CONNECT[:3], *arguments, env=self.env)

    def dls(self, *arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `dls` on the laptop to its end, without a terminal."""
        words = self.node.words(*CONNECT[:3], *arguments, env=self.env | (env or {}))
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_SECONDS, cwd=self.folder
        )

    def try_to_connect(self, *options: object) -> subprocess.CompletedProcess[str]:
        """Run `dls connect` where it is expected to end by itself."""
        return self.dls("connect", *self.options, "--local-port", free_port(), *options, self.way.target)

    @contextlib.contextmanager
    def connected(self, *options: object) -> Iterator[ConnectProcess]:
        """Run `dls connect` until the block ends, and end the server then."""
        process = self.start(*options, "--stop-server")
        try:
            yield process
        finally:
            process.close()

    def start(self, *options: object, seconds: float = INSTALL_SECONDS) -> ConnectProcess:
        """Run `dls connect` and return when it is ready."""
        wrapper = self.node.words(env=self.env)
        return ConnectProcess(self.folder, *self.options, *options, self.way.target, wrapper=wrapper, seconds=seconds)

    def click(self, process: ConnectProcess) -> None:
        """Click on the laptop; fails unless the mask is right."""
        self.node.call(lambda: click_once(process.port))

    def pack(self, file: Path, *options: object) -> None:
        """Make a parcel with the region engine for this lab's hosts on the laptop."""
        version = self.node_of_host.run("python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
        machine = self.node_of_host.run("uname", "-m").strip()
        done = self.dls(
            "pack", "--engine", "region", "--platform", f"linux-{machine}", "--python", version, "-o", file, *options
        )
        assert done.returncode == 0, done.stderr

    def remove(self) -> None:
        """Remove the directory on the host."""
        shutil.rmtree(self.kept, ignore_errors=True)

    def sent_bytes(self) -> int:
        """Return how many bytes have left the laptop towards the hosts."""
        text = self.node.run("ip", "-j", "-s", "link", "show", "far")
        return int(json.loads(text)[0]["stats64"]["tx"]["bytes"])


def listeners(lab: Lab, host: str) -> set[int]:
    """Return the TCP ports on which something other than the host's own SSH servers listens."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in lab.hosts[host].run("cat", table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found - set(range(22, 22 + len(FORWARDING)))
