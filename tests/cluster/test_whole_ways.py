"""From the login node of a cluster into a job, to a click through the local port, and out again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import dls
from dls.remote.host import deploy
from tests.cluster.lab import HOST, LOGIN, Cluster, wait_until
from tests.cluster.ways import connected, nothing_runs, stop
from tests.support.connecting import RecordingReporter, click_once

pytestmark = pytest.mark.slow


def test_a_click_on_a_cluster_is_answered_in_a_job(idle: Cluster) -> None:
    """A cold connect submits a job and the click is answered on its node; the login node runs no process of ours but
    sshd's for the login. A second connect finds the job, and `dls stop` leaves no job and no process."""
    reporter = RecordingReporter()
    with connected(idle, reporter) as session:
        click_once(session.port)
        assert reporter.phases.count("login") == 1 and "queue" in reporter.phases
        jobs = idle.jobs()
        assert [job[1] for job in jobs] == ["RUNNING"] and session.state.host == jobs[0][2]
        assert not [line for line in idle.processes(LOGIN) if "sshd" not in line]
        assert any("dls serve" in line for line in idle.processes(jobs[0][2]))
    with connected(idle) as session:
        click_once(session.port)
        assert idle.jobs() == jobs
    assert stop(idle)
    assert not idle.jobs()
    wait_until(lambda: nothing_runs(idle), "the end of all processes")
    assert not stop(idle)


def test_the_server_is_a_child_of_the_batch_script(idle: Cluster) -> None:
    """The server is in the job's group of processes, with the GPU that Slurm chose."""
    with connected(idle) as session:
        node, pid = session.state.host, session.state.pid
        environment = idle.inside(node, "cat", f"/proc/{pid}/environ").split("\0")
        assert "CUDA_VISIBLE_DEVICES=0" in environment
        assert f"SLURM_JOB_ID={session.job.job.id}" in environment  # type: ignore[union-attr]
        assert "slurm" in idle.inside(node, "cat", f"/proc/{pid}/cgroup")


def test_the_end_of_the_server_ends_the_job(idle: Cluster) -> None:
    """`--stop-server` ends the job at once, so that its GPU is free."""
    session = connected(idle)
    session.close(stop_server=True)
    wait_until(lambda: not idle.jobs(), "the job's end")


def test_a_server_with_other_options_runs_in_the_same_job(idle: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client that ends an unused server to start its own one keeps the job, and waits in no queue again."""
    monkeypatch.setattr(deploy, "IDLE_SECONDS", -1.0)  # nobody is connected any more
    with connected(idle) as session:
        first, job = session.state, session.job
    assert job is not None
    reporter = RecordingReporter()
    with connected(idle, reporter, server=dls.ServerOptions("region", native_api=False)) as session:
        click_once(session.port)
        assert "stop" in reporter.phases and session.state.pid != first.pid
        assert [line[0] for line in idle.jobs()] == [job.job.id] and session.state.host == first.host


def test_a_job_in_which_a_server_runs_is_in_use(idle: Cluster) -> None:
    """The client that submitted it does not cancel it when it gives up: another one may work there."""
    with connected(idle) as session:
        assert (placed := session.job) is not None
        assert placed.scheduler.is_in_use(placed.login, placed.job.id)
        assert not placed.scheduler.is_in_use(placed.login, f"{placed.job.id}0")


def test_an_idle_server_ends_its_job(idle: Cluster) -> None:
    """With nobody connected for `--idle`, the server ends and frees its GPU."""
    with connected(idle, server=dls.ServerOptions("region", idle_minutes=0.05)) as session:
        click_once(session.port)
    wait_until(lambda: not idle.jobs(), "the job's end")


def test_here_insists_on_the_login_node(idle: Cluster) -> None:
    """With `--here` the server runs on the login node, and no job is submitted."""
    with connected(idle, mode="here") as session:
        click_once(session.port)
        assert session.state.host == LOGIN and session.job is None and not idle.jobs()
    assert stop(idle)


def test_the_doctor_knows_a_cluster(idle: Cluster) -> None:
    """`dls doctor` says that the server would run in a job, and what the partitions allow.

    That the login node does not reach the model hub, as in this lab, is no reason to fail: the node of a job may.
    """
    options = ["--json", "--engine", "nninteractive", "-F", str(idle.config)]
    command = [sys.executable, "-m", "dls", "doctor", *options, HOST]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert all("login node" in each["text"] for each in findings if each["subject"] == "internet there")
    texts = [finding["text"] for finding in findings if finding["subject"] == "cluster"]
    assert texts[0].startswith("Slurm: dls connect runs the server in a job")
    assert "Partition gpu: gpu:fake:2, up to 1 h." in texts
    # The login node has none, and what it would install for that is not what the job installs.
    assert [each["text"] for each in findings if each["subject"] == "GPU"] == ["That of a job: Slurm chooses it."]
    assert "in the job" in next(each["text"] for each in findings if each["subject"] == "installation")
    assert not idle.jobs()


def test_the_log_and_the_sessions_of_a_job(idle: Cluster) -> None:
    """`dls logs`, `dls sessions` and `dls status` on the login node show those of the job, and submit none."""

    def dls_command(*words: str) -> str:
        command = [sys.executable, "-m", "dls", *words[:1], "-F", str(idle.config), *words[1:], HOST]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    with connected(idle) as session:
        click_once(session.port)
        assert "serves the region engine" in dls_command("logs")
        assert "30 x" in (listed := dls_command("sessions")) or "50 x 40 x 30" in listed
        found = json.loads(dls_command("status", "--json"))
        assert [job["id"] for job in found["jobs"]] == [job[0] for job in idle.jobs()]
        assert [server["engine"] for server in found["servers"]] == ["region"]
    stop(idle)
    found = json.loads(dls_command("status", "--json"))
    assert found["jobs"] == found["servers"] == [] and not idle.jobs()
    assert "serves the region engine" in dls_command("logs")
    assert "50 x 40 x 30" in dls_command("sessions")
    dls_command("sessions", "--purge", "--yes")
    assert "No sessions" in dls_command("sessions") and not idle.jobs()
