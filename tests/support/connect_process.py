"""`dls connect` as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dls.remote.user.folders import VARIABLE
from tests.support.processes import free_port, interruptible, is_gone

CONNECT = (sys.executable, "-m", "dls", "connect", "--engine", "region", "--json")
"""What is started; options that follow win over these."""


class ConnectProcess:
    """A process that runs `dls connect --json`, and the events that it has written."""

    def __init__(
        self,
        log_folder: Path,
        *options: object,
        port: int | None = None,
        wrapper: Sequence[object] = (),
        seconds: float = 180,
    ) -> None:
        self.port = port or free_port()
        self.events: list[dict[str, object]] = []
        words = [*wrapper, *CONNECT, "--local-port", self.port, *options]
        self.log = (log_folder / f"client-{self.port}.log").open("w")
        self.process = subprocess.Popen(
            [str(word) for word in words],
            stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, text=True, preexec_fn=interruptible,
            env={VARIABLE: str(log_folder / "user"), **os.environ},
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        deadline = time.monotonic() + seconds
        while not any(event["event"] == "ready" for event in self.events):
            assert self.process.poll() is None and time.monotonic() < deadline, self.read_log()
            time.sleep(0.02)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def read_log(self) -> str:
        return Path(self.log.name).read_text()

    def kill(self) -> None:
        """Kill it with SIGKILL; its port is free then."""
        self.process.kill()
        self._forget()

    def close(self) -> None:
        """End it with Ctrl-C."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self._forget()

    def _forget(self) -> None:
        self.process.wait()
        self._reader.join()
        self.log.close()
        assert self.process.stdout is not None
        self.process.stdout.close()


def server_of(remote_dir: str) -> int:
    """Return the process id of the server that runs from a remote directory of this machine."""
    for state in Path(remote_dir).glob("run/*/state.json"):
        pid = int(json.loads(state.read_text())["pid"])
        if not is_gone(pid):
            return pid
    raise AssertionError("no server")


def engine_of(remote_dir: str) -> int:
    """Return the process id of its engine."""
    [engine] = children_of(server_of(remote_dir))
    return engine


def children_of(parent: int) -> list[int]:
    """Return the process ids of a process's children that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def engines_of(server: int) -> list[int]:
    """Return the process ids of a server's engines that have not ended."""
    found = []
    for pid in children_of(server):
        with contextlib.suppress(OSError):
            if b"dls.server.engines.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def kill_all(pids: Sequence[int]) -> None:
    """Kill the processes with SIGKILL; those that have ended meanwhile are no error."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
