"""The servers that are compared, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port

HERE = Path(__file__).resolve().parent
PEER = HERE.parent / ".bench" / "itksnap-dls"
NEEDS = ("fastapi", "uvicorn", "python-multipart", "SimpleITK", "numpy", "huggingface_hub", "requests")
TORCH = "torch==2.13.0"


@dataclass
class Running:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    snap: ItkSnap
    log: Path
    model: str

    def pids(self) -> list[int]:
        """Its process, and those it started."""
        found = [self.process.pid]
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
        return found

    def model_seconds(self) -> float:
        """What the peer says its mock spent on the last prompt."""
        told = re.findall(r"t\[nnInteractive\][^0-9]*([0-9.]+)", self.log.read_text())
        return float(told[-1]) if told else 0.0


def peer_python() -> Path:
    """Return the Python of an environment with itksnap-dls 0.1.6, made at the first call."""
    python = PEER / "bin" / "python"
    done = PEER / "complete"
    if not done.exists():
        print("making an environment for itksnap-dls 0.1.6 ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, *NEEDS], check=True)
        subprocess.run([*pip, "--no-deps", "itksnap-dls==0.1.6"], check=True)
        done.touch()
    return python


@contextlib.contextmanager
def started(command: list[str], port: int, model: str, environment: dict[str, str]) -> Iterator[Running]:
    """Run a server until the block ends."""
    with tempfile.TemporaryDirectory(prefix="dls-b-") as folder:
        log = Path(folder) / "log"
        with (
            log.open("wb") as stream,
            subprocess.Popen(
                command, stdout=stream, stderr=stream, env={**os.environ, "PYTHONUNBUFFERED": "1", **environment}
            ) as process,
        ):
            snap = ItkSnap(port)
            try:
                for _ in range(1200):
                    with contextlib.suppress(Exception):
                        snap.start(model)
                        break
                    if process.poll() is not None:
                        raise SystemExit(log.read_text())
                    time.sleep(0.05)
                yield Running(process, snap, log, model)
            finally:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


@contextlib.contextmanager
def peer() -> Iterator[Running]:
    """itksnap-dls 0.1.6 with its mock model."""
    port = free_port()
    command = [str(peer_python()), "-m", "itksnap_dls", "--mock-models", "--host", "127.0.0.1", "--port", str(port)]
    with started(command, port, "nnInteractive", {}) as running:
        yield running


@contextlib.contextmanager
def ours(*more: str, engine: str = "ball:BallEngine") -> Iterator[Running]:
    """`dls serve`, with an engine that only paints."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dls-b-", dir="/var/tmp") as kept:
        command = [sys.executable, "-m", "dls", "serve", "--port", str(port), "--engine", engine]
        command += more if "--session-dir" in more else (*more, "--session-dir", kept)
        model = "nnInteractive" if engine.startswith("ball") else "region"
        with started(command, port, model, {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}) as running:
            yield running
