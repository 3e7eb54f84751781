"""The server answers requests while its engine loads."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest

from dls.errors import DlsError, EngineError, EngineLost
from dls.server.engines.base import Engine, Progress, ReportProgress
from dls.server.engines.process import ProcessEngine
from dls.server.engines.readiness import Readiness
from dls.server.engines.region import RegionEngine
from dls.server.options import EngineOptions
from dls.server.spawn import EngineChild
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.processes import is_gone, until


class SlowEngine(RegionEngine):
    """Finishes loading when `finish` is set; then fails if there is a `failure`."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.finish = threading.Event()
        self.failure = failure

    def load(self, report: ReportProgress) -> None:
        report(Progress("download", "downloading x: 5 MB", 5_000_000, 10_000_000))
        assert self.finish.wait(60)
        if self.failure:
            raise self.failure


class ObservedReadiness(Readiness):
    """Sets `has_waiter` when a request begins to wait, and collects the failures that the server is told."""

    def __init__(self) -> None:
        self.failures: list[DlsError] = []
        super().__init__(self.failures.append)
        self.has_waiter = threading.Event()

    async def wait(self) -> None:
        self.has_waiter.set()
        await super().wait()


def test_status_answers_at_once_and_a_session_waits() -> None:
    """While the engine loads, /status reports the progress in extra fields, and a new session waits."""
    engine, readiness = SlowEngine(), ObservedReadiness()
    check: Engine = engine
    assert check is engine
    with serving(engine, readiness=readiness) as server, ThreadPoolExecutor(1) as pool:
        snap = ItkSnap(server.port)
        until(lambda: snap.get("/status").json.get("step") == "download")
        status = snap.get("/status").json
        assert list(status)[:2] == ["status", "version"] and status["status"] == "ok"
        assert (status["state"], status["text"], status["done"], status["total"]) == (
            "loading", "downloading x: 5 MB", 5_000_000, 10_000_000,
        )  # fmt: skip
        assert snap.get("/v2/models").status == 200
        waiting = pool.submit(snap.start)
        assert readiness.has_waiter.wait(30)
        # However slow the machine is, a server that waits can't fail this: nothing else lets the session start.
        assert not futures.wait([waiting], timeout=0.5).done
        engine.finish.set()
        assert waiting.result(30)
        assert snap.get("/status").json == {"status": "ok", "version": "0.1.6"}
        assert snap.upload(np.zeros((3, 3, 3), np.float32)).status == 200


ENDLESS_ENGINE = """
import os
import time
from dls.server.engines.region import RegionEngine

class Endless(RegionEngine):
    def __init__(self, options):
        pass

    def load(self, report):
        print(os.getpid(), flush=True)
        time.sleep(1000)
"""


def test_a_server_that_loads_can_be_ended(short_folder: Path) -> None:
    """Ctrl-C ends a server whose engine loads; a session that waits gets an error, and no process or socket remains."""
    path = short_folder / "s"
    (short_folder / "endless.py").write_text(ENDLESS_ENGINE)
    command = [sys.executable, "-m", "dls", "serve", "--uds", str(path), "--engine", "endless:Endless"]
    command += ["--session-dir", str(short_folder)]
    environment = {**os.environ, "PYTHONPATH": str(short_folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            engine_pid = int(process.stdout.readline())
            answer = interrupt_while_a_session_waits(process, path)
            process.wait(60)
        finally:
            process.kill()
    assert answer.startswith(b"HTTP/1.1 503 ") and b"The server is ending." in answer
    assert is_gone(engine_pid)
    assert not path.exists()


def interrupt_while_a_session_waits(process: subprocess.Popen[str], path: Path) -> bytes:
    """Interrupt the server after it has begun to handle the start of a session; return its answer to that."""
    head = b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        # Pipelined: once the answer to the first request is there, the server has begun with the second.
        client.sendall(b"GET /status" + head + b"GET /start_session" + head)
        received = b""
        while b'"state":"loading"' not in received:
            received += client.recv(1 << 16)
        process.send_signal(signal.SIGINT)
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
    return answer


@pytest.mark.parametrize("failure", [EngineError("The model is gone."), ZeroDivisionError("x")])
def test_an_engine_that_can_not_be_loaded(failure: Exception) -> None:
    """When loading fails, the server is told once, a session that waits gets the error, and /status reports it."""
    engine, readiness = SlowEngine(failure), ObservedReadiness()
    with serving(engine, readiness=readiness) as server, ThreadPoolExecutor(1) as pool:
        snap = ItkSnap(server.port)
        waiting = pool.submit(snap.get, "/v2/start_session/region")
        assert readiness.has_waiter.wait(30)
        engine.finish.set()
        answer = waiting.result(30)
        assert answer.status == 503 and "could not be loaded" in answer.error
        assert snap.get("/status").json["state"] == "failed"
        assert len(readiness.failures) == 1


def test_a_process_that_ends_before_its_first_message() -> None:
    """A process that ends during its imports, as without memory, is reported with its status and replaced."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        process.wait()
    child = EngineChild(connection.Connection(ours.detach()), process)
    engine = ProcessEngine("region", EngineOptions(), RegionEngine(), child)
    with pytest.raises(EngineLost, match="status 3"):
        engine.load(lambda progress: None)
    engine.load(lambda progress: None)  # starts another process
    engine.close()
