"""Start the servers that are compared, each in its own process."""

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
"""Virtual environment with itksnap-dls 0.1.6."""
PEER_PACKAGES = ("fastapi", "uvicorn", "python-multipart", "SimpleITK", "numpy", "huggingface_hub", "requests")
TORCH = "torch==2.13.0"


@dataclass
class Running:
    """A running server, and a client with a session on it."""

    process: subprocess.Popen[bytes]
    snap: ItkSnap
    log: Path
    model: str

    def pids(self) -> list[int]:
        """Return the process IDs of the server and of its children."""
        found = [self.process.pid]
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            found += [int(word) for word in (task / "children").read_text().split()]
        return found

    def model_seconds(self) -> float:
        """Return the seconds that the peer's mock model took for the last prompt, from the peer's log; 0 for ours."""
        found = re.findall(r"t\[nnInteractive\][^0-9]*([0-9.]+)", self.log.read_text())
        return float(found[-1]) if found else 0.0


def peer_python() -> Path:
    """Return the Python of the environment with itksnap-dls 0.1.6; the first call creates the environment."""
    python = PEER / "bin" / "python"
    complete = PEER / "complete"
    if not complete.exists():
        print("creating an environment for itksnap-dls 0.1.6 ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, TORCH], check=True)
        subprocess.run([*pip, *PEER_PACKAGES], check=True)
        subprocess.run([*pip, "--no-deps", "itksnap-dls==0.1.6"], check=True)
        complete.touch()
    return python


@contextlib.contextmanager
def run_server(command: list[str], port: int, model: str, environment: dict[str, str]) -> Iterator[Running]:
    """Run a server, yield it when it has started a session, and stop it."""
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
    """Run itksnap-dls 0.1.6 with its mock model."""
    port = free_port()
    command = [str(peer_python()), "-m", "itksnap_dls", "--mock-models", "--host", "127.0.0.1", "--port", str(port)]
    with run_server(command, port, "nnInteractive", {}) as running:
        yield running


@contextlib.contextmanager
def ours(*options: str, engine: str = "ball:BallEngine", checkout: Path = HERE.parent) -> Iterator[Running]:
    """Run `dls serve` of a checkout, by default with the engine that paints a ball and does nothing else."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dls-b-", dir="/var/tmp") as sessions:
        command = [sys.executable, "-m", "dls", "serve", "--port", str(port), "--engine", engine]
        command += options if "--session-dir" in options else (*options, "--session-dir", sessions)
        model = "nnInteractive" if engine.startswith("ball") else "region"
        with run_server(command, port, model, {"PYTHONPATH": f"{HERE}{os.pathsep}{checkout}"}) as running:
            yield running
