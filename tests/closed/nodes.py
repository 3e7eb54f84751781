"""Computers of a lab: processes in network, mount and host name namespaces of their own, with cables between them.

The namespaces have no names: they end with the process that holds them, and that one ends with the lab's, also when it
is killed. Needs root, iproute2 and util-linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.support.processes import interruptible, until

Value = TypeVar("Value")
PR_SET_PDEATHSIG, CLONE_NEWNET = 1, 0x40000000
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_libc = ctypes.CDLL(None, use_errno=True)


def run(*words: object) -> str:
    """Run a program and return what it printed; raises RuntimeError with what it says when it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def end_with_parent() -> None:
    """Let a new process react to signals, and end with the thread that started it."""
    interruptible()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Node:
    """A computer with a network and a host name of its own.

    `mounts` says where it sees which folder or file, None for an empty one in memory; with `own_processes` its
    processes are numbered on their own, and end with it.
    """

    def __init__(
        self, name: str, folder: Path, mounts: Mapping[str, Path | None] | None = None, *, own_processes: bool = False
    ) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(mode=0o755)
        self._own_processes = own_processes
        self._mounts = mounts or {}
        self._process = self._boot()

    def _boot(self) -> subprocess.Popen[bytes]:
        script = self.folder / "boot"
        ready = self.folder / "ready"
        lines = [f"hostname {self.name}", "ip link set lo up"]
        for place, source in self._mounts.items():
            what = f"--rbind '{source}'" if source else "-t tmpfs -o mode=1777 tmpfs"
            lines.append(f"mount {what} '{place}'")
        # The first process of a process namespace has to reap the others.
        lines += [
            f"echo >{ready}",
            "while :; do sleep 1000 & wait $!; done" if self._own_processes else "exec sleep inf",
        ]
        script.write_text("set -e\n" + "\n".join(lines) + "\n")
        words = ["unshare", "-n", "-u", "-m"]
        words += ["-p", "-f", "--mount-proc", "--kill-child=KILL"] if self._own_processes else []
        with (self.folder / "boot.log").open("w") as log:
            process = subprocess.Popen(
                [*words, "sh", str(script)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
            )

        def is_ready() -> bool:
            assert process.poll() is None, (self.folder / "boot.log").read_text()
            return ready.exists()

        until(is_ready)
        return process

    @property
    def pid(self) -> int:
        """The first process of the node."""
        if not self._own_processes:
            return self._process.pid
        return int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0])

    def words(self, *words: object, user: str = "", env: Mapping[str, str] | None = None) -> list[str]:
        """Return the command that runs a program on the node, with nothing but `env` in its environment."""
        enter = ["nsenter", "-t", str(self.pid), "-n", "-u", "-m", *(["-p"] if self._own_processes else [])]
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        variables = {"PATH": SYSTEM_PATH, **(env or {})}
        return [*enter, *become, "env", "-i", *(f"{k}={v}" for k, v in variables.items()), *map(str, words)]

    def run(self, *words: object, user: str = "") -> str:
        """Run a program on the node and return what it printed."""
        return run(*self.words(*words, user=user))

    def try_to(self, *words: object, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program on the node, which may fail."""
        return subprocess.run(self.words(*words, user=user), capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def start(
        self, *words: object, log: Path, user: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program on the node that runs until the node or the lab's process ends."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                self.words(*words, user=user, env=env),
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, preexec_fn=end_with_parent,
            )  # fmt: skip

    def call(self, function: Callable[[], Value]) -> Value:
        """Call a function of this process in the node's network; sockets and threads that it makes stay there."""
        outcome: list[Value] = []
        failure: list[BaseException] = []

        def enter_and_call() -> None:
            try:
                with Path(f"/proc/{self.pid}/ns/net").open() as space:
                    if _libc.setns(space.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                outcome.append(function())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter_and_call)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return outcome[0]

    def end(self) -> None:
        """End the node, and with it, where it has its own, all of its processes."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


def plug(node: Node, device: str, switch: Node, addresses: Sequence[str] = ()) -> None:
    """Lay a cable from a new network device of the node, with these addresses, to a switch."""
    port = f"{node.name}-{device}"[:15]
    run("ip", "link", "add", device, "netns", node.pid, "type", "veth", "peer", "name", port, "netns", switch.pid)
    switch.run("ip", "link", "set", port, "master", "br0", "up")
    for address in addresses:
        node.run("ip", "addr", "add", address, "dev", device)
    node.run("ip", "link", "set", device, "up")


def make_switch(node: Node, *addresses: str) -> None:
    """Let the node have a switch, `br0`, and these addresses in the network behind it."""
    node.run("ip", "link", "add", "br0", "type", "bridge")
    for address in addresses:
        node.run("ip", "addr", "add", address, "dev", "br0")
    node.run("ip", "link", "set", "br0", "up")
