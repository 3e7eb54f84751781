"""`dls connect` as a process of its own, in front of the lab's host."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.faults.lab import NAME, Lab
from tests.support.processes import free_port, interruptible


class Client:
    """A process that runs `dls connect --json`, and the events that it has written."""

    def __init__(self, lab: Lab, *more: str, port: int | None = None) -> None:
        self.lab = lab
        self.port = port or free_port()
        self.events: list[dict[str, object]] = []
        dls = [sys.executable, "-m", "dls", "connect", "--json", "-F", lab.config, "--remote-dir", lab.remote_dir]
        dls += ["--local-port", self.port, *lab.options, *more, NAME]
        mount = f'mount --bind {lab.hosts} /etc/hosts && exec "$@"'
        self.log = (lab.folder / f"client-{self.port}.log").open("w")
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", mount, "-", *map(str, dls)],
            stdout=subprocess.PIPE, stderr=self.log, stdin=subprocess.DEVNULL, text=True, preexec_fn=interruptible,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()
        deadline = time.monotonic() + 60
        while not any(event["event"] == "ready" for event in self.events):
            assert self.process.poll() is None and time.monotonic() < deadline, self.read_log()
            time.sleep(0.02)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))

    def read_log(self) -> str:
        return Path(self.log.name).read_text()

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self.log.close()
            assert self.process.stdout is not None
            self.process.stdout.close()
