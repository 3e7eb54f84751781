"""The server answers while its engine loads."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from pathlib import Path

import numpy as np
import pytest

from dls.errors import EngineError, EngineLost
from dls.server.engines.base import Engine, Step, Tell
from dls.server.engines.process import ProcessEngine
from dls.server.engines.readiness import Readiness
from dls.server.engines.region import RegionEngine
from dls.server.options import EngineOptions
from dls.server.spawn import SpawnedWorker
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.processes import until


class Slow(RegionEngine):
    """Loads when it is told to, and fails when it is told to."""

    def __init__(self) -> None:
        self.send_continue = threading.Event()
        self.failure: Exception | None = None

    def load(self, tell: Tell) -> None:
        tell(Step("download", "downloading x: 5 MB", 5_000_000, 10_000_000))
        self.send_continue.wait(20)
        if self.failure:
            raise self.failure


def test_status_answers_at_once_and_a_session_waits() -> None:
    """With what it does and how far it is as extra keys; a session that is asked for meanwhile does not fail."""
    engine = Slow()
    check: Engine = engine
    assert check is engine
    with serving(engine) as server, ThreadPoolExecutor(1) as pool:
        snap = ItkSnap(server.port)
        until(lambda: snap.get("/status").json.get("step") == "download")
        said = snap.get("/status").json
        assert list(said)[:2] == ["status", "version"] and said["status"] == "ok"
        assert (said["state"], said["text"], said["done"], said["total"]) == (
            "loading", "downloading x: 5 MB", 5_000_000, 10_000_000,
        )  # fmt: skip
        assert snap.get("/v2/models").status == 200
        waiting = pool.submit(snap.start)
        time.sleep(0.3)
        assert not waiting.done()
        engine.send_continue.set()
        assert waiting.result(20)
        assert snap.get("/status").json == {"status": "ok", "version": "0.1.6"}
        assert snap.upload(np.zeros((3, 3, 3), np.float32)).status == 200


SLOW = """
import time
from dls.server.engines.region import RegionEngine

class Slow(RegionEngine):
    def __init__(self, options):
        pass

    def load(self, tell):
        print("loading", flush=True)
        time.sleep(100)
"""


def test_a_server_that_loads_can_be_ended(short_folder: Path) -> None:
    """At once, whatever the engine is doing, also while a session waits; nothing stays behind."""
    path = short_folder / "s"
    (short_folder / "slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "dls", "serve", "--uds", str(path), "--engine", "slow:Slow"]
    command += ["--session-dir", str(short_folder)]
    environment = {**os.environ, "PYTHONPATH": str(short_folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == "loading\n"
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))
            waiting.sendall(b"GET /start_session HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            process.wait(20)
    assert not path.exists()


@pytest.mark.parametrize("failure", [EngineError("The model is gone."), ZeroDivisionError("x")])
def test_an_engine_that_can_not_be_loaded(failure: Exception) -> None:
    """The server is told, whoever waits gets the sentence, and `/status` says so."""
    engine, told = Slow(), []
    engine.failure = failure
    with serving(engine, readiness=Readiness(told.append)) as server, ThreadPoolExecutor(1) as pool:
        snap = ItkSnap(server.port)
        waiting = pool.submit(snap.get, "/v2/start_session/region")
        time.sleep(0.2)
        engine.send_continue.set()
        answer = waiting.result(20)
        assert answer.status == 503 and "could not be loaded" in answer.error
        assert snap.get("/status").json["state"] == "failed"
        assert len(told) == 1


def test_a_process_that_dies_before_it_is_told_anything_says_how() -> None:
    """As when the machine's memory runs out, or a library can't be loaded, while it imports."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
        process.wait()
    begun = SpawnedWorker(connection.Connection(ours.detach()), process)
    engine = ProcessEngine("region", EngineOptions(), RegionEngine(), begun)
    with pytest.raises(EngineLost, match="status 3"):
        engine.load(lambda step: None)
    engine.load(lambda step: None)  # another one
    engine.close()
