"""A session outlives the engine's process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.server.sessions.example import CLICKS, IMAGE, mask_after
from tests.support.connect_process import engines_of
from tests.support.engines import TROUBLE
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, is_gone, until


@dataclass
class Served:
    """A server in a process of its own, whose engine fails on demand."""

    process: subprocess.Popen[bytes]
    snap: ItkSnap
    trouble: Path

    def engine_pid(self) -> int:
        """Return the process number of the engine."""
        return engines_of(self.process.pid)[0]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    port = free_port()
    environment = {**os.environ, TROUBLE: str(tmp_path)}
    command = [sys.executable, "-m", "dls", "serve", "--port", str(port), "--engine", "tests.support.engines:Troubled"]
    command += ["--session-dir", str(tmp_path / "sessions")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            snap = ItkSnap(port)
            until(lambda: is_listening(port), 120)
            snap.start()
            assert snap.upload(IMAGE).status == 200
            snap.point(*CLICKS[0])
            yield Served(process, snap, tmp_path)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def is_listening(port: int) -> bool:
    """Return whether the port accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_an_engine_that_dies_is_replaced(served: Served) -> None:
    """If it dies between prompts, during one, or by an error of the GPU, the click succeeds all the same."""
    before = served.engine_pid()
    os.kill(before, signal.SIGKILL)
    np.testing.assert_array_equal(served.snap.mask(served.snap.point(*CLICKS[1])), mask_after(CLICKS[:2]))
    assert served.engine_pid() != before
    for fault in ("die", "cuda"):
        served.snap.get(f"/reset_interactions/{served.snap.session}")
        for click in CLICKS[:2]:
            served.snap.point(*click)
        (served.trouble / fault).touch()
        np.testing.assert_array_equal(served.snap.mask(served.snap.point(*CLICKS[2])), mask_after(CLICKS))
        assert not (served.trouble / fault).exists()


def test_a_prompt_that_always_kills_the_engine_is_refused(served: Served) -> None:
    """The answer says why and that nothing was changed; the server and the session go on."""
    for fault, reason in (("die", "killed"), ("cuda", "device-side assert")):
        (served.trouble / fault).write_text("always")
        answer = served.snap.point(*CLICKS[1])
        assert answer.status == 500 and reason in answer.error and "Nothing was changed" in answer.error
        (served.trouble / fault).unlink()
    np.testing.assert_array_equal(served.snap.mask(served.snap.point(*CLICKS[1])), mask_after(CLICKS[:2]))


@pytest.mark.slow
def test_an_engine_that_hangs_is_replaced(served: Served) -> None:
    """An engine that sends nothing for a minute is killed."""
    (served.trouble / "stop").touch()
    np.testing.assert_array_equal(served.snap.mask(served.snap.point(*CLICKS[1])), mask_after(CLICKS[:2]))


def test_the_engine_ends_with_its_server(served: Served) -> None:
    """The engine's process ends even when the server is killed."""
    engine = served.engine_pid()
    served.process.kill()
    served.process.wait()
    until(lambda: is_gone(engine), 60)
