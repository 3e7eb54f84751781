"""Jobs that wait, jobs that can never start, and waits that the user ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import dls
from tests.cluster.lab import HOST, LOGIN, OTHER_USER, Cluster, wait_until
from tests.cluster.ways import QueueReporter, connected, stop
from tests.support.connecting import click_once
from tests.support.processes import free_port, interruptible

pytestmark = pytest.mark.slow


@pytest.fixture
def full(idle: Cluster) -> Iterator[tuple[Cluster, str]]:
    """The lab with all GPUs in another user's job, and that job's id."""
    words = [
        "sbatch",
        "--parsable",
        "--nodes=2",
        "--gres=gpu:2",
        "--time=30",
        "--output=/dev/null",
        "--wrap=sleep 1000",
    ]
    other = idle.inside(LOGIN, *words, user=OTHER_USER).strip()
    wait_until(lambda: [job[1] for job in idle.jobs(OTHER_USER)] == ["RUNNING"], "the other user's job")
    yield idle, other


def test_a_job_waits_for_another_s_gpu(full: tuple[Cluster, str]) -> None:
    """The phase "queue" says why the job waits and when Slurm expects it to start, and goes on when a GPU is free."""
    cluster, other = full
    reporter = QueueReporter()
    sessions: list[dls.Session] = []
    thread = threading.Thread(target=lambda: sessions.append(connected(cluster, reporter)))
    thread.start()
    wait_until(lambda: any("waits for a free GPU" in text for text in reporter.updates), "the reason")
    wait_until(lambda: any("expects it to start in" in text for text in reporter.updates), "the estimate")
    cluster.inside(LOGIN, "scancel", other)
    thread.join(90)
    with sessions[0] as session:
        click_once(session.port)


def test_the_place_in_line(full: tuple[Cluster, str]) -> None:
    """With others that wait before it, the job's place among them is said."""
    cluster, _ = full
    words = ["sbatch", "--gres=gpu:2", "--time=30", "--output=/dev/null", "--wrap=sleep 1000"]
    cluster.inside(LOGIN, *words, user=OTHER_USER)
    with Connecting(cluster) as process:
        wait_until(lambda: "place 2 of 2 in line" in process.said(), "the place")


class Connecting:
    """A process that runs `dls connect --json`; a context manager that interrupts it."""

    def __init__(self, cluster: Cluster, *more: str) -> None:
        command = [sys.executable, "-m", "dls", "connect", "--engine", "region", "--json", "-F", str(cluster.config)]
        self._log = cluster.folder / f"connect-{free_port()}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--gres", "gpu:1", "--local-port", str(free_port()), *more, HOST],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=interruptible,
            )

    def said(self) -> str:
        return self._log.read_text()

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def __enter__(self) -> Connecting:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None and self.interrupt() not in (0, 130):
            self.process.kill()

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def test_an_interrupted_wait_cancels_the_job(full: tuple[Cluster, str]) -> None:
    """Ctrl-C in the queue cancels the job and says so; the states of the queue are events of `--json`."""
    cluster, _ = full
    with Connecting(cluster) as process:
        wait_until(lambda: any(event["event"] == "queue" for event in process.events()), "an event of the queue")
        assert [job[1] for job in cluster.jobs()] == ["PENDING"]
        assert process.interrupt() == 130
    assert not cluster.jobs()
    assert "Cancelled the job" in process.said() and "Traceback" not in process.said()


def test_leaving_says_how_long_the_job_runs_on(idle: Cluster) -> None:
    """Ctrl-C after a connect leaves the job, and says for how long and what ends it."""
    with Connecting(idle, "--time", "10m") as process:
        wait_until(lambda: any(event["event"] == "ready" for event in process.events()), "ready")
        assert process.interrupt() == 0
    assert "runs for another 10 min" in process.said() and "dls stop" in process.said()
    assert [job[1] for job in idle.jobs()] == ["RUNNING"]


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ({"time": "3h"}, "--time 3h is longer than the partition gpu allows: 1 h."),
        ({"partition": "cpu"}, "There is no partition cpu here; there are: gpu."),
        ({"gres": "gpu:a100:1"}, "No node of the partition gpu has gpu:a100:1; there are: gpu:fake:2."),
        ({"gres": "gpu:3"}, "No node of the partition gpu has gpu:3; there are: gpu:fake:2."),
        ({"mem": "1T"}, "No node of the partition gpu has 1T of memory; the largest has 2000 MiB."),
        ({"cpus": 17}, "No node of the partition gpu has 17 CPUs; the largest has 16."),
        ({"constraint": "huge"}, "No node of the partition gpu has the feature huge; there are: large, small."),
    ],
)
def test_an_impossible_request_is_refused_before_it_is_submitted(
    idle: Cluster, job: dict[str, Any], sentence: str
) -> None:
    """What no node will ever give is refused with a sentence; no job is submitted."""
    with pytest.raises(dls.HostError) as caught:
        connected(idle, **job)
    assert caught.value.message == sentence
    assert not idle.jobs()


def test_what_slurm_refuses_is_said_in_its_words(idle: Cluster) -> None:
    """An option that sbatch does not take ends in Slurm's own words."""
    with pytest.raises(dls.HostError, match=r"Slurm refuses the job: .*Invalid node name specified\."):
        connected(idle, sbatch_options=("nodelist=nowhere",))
    assert not idle.jobs()


def test_two_laptops_share_a_job(full: tuple[Cluster, str]) -> None:
    """A second connect, while the job of the first one still waits, waits for the same job."""
    cluster, other = full
    with Connecting(cluster) as first, Connecting(cluster) as second:
        wait_until(lambda: all("The job" in process.said() for process in (first, second)), "both in the queue")
        assert len(cluster.jobs()) == 1
        cluster.inside(LOGIN, "scancel", other)
        for process in (first, second):
            wait_until(lambda: any(event["event"] == "ready" for event in process.events()), "ready")  # noqa: B023
        assert len(cluster.jobs()) == 1
    assert stop(cluster)


def test_a_gpu_s_number_is_refused(idle: Cluster) -> None:
    """`--gpu` numbers the GPUs of a host; in a job Slurm has chosen."""
    with pytest.raises(dls.TargetError, match="in a job Slurm chooses"):
        connected(idle, server=dls.ServerOptions(gpu=1))
