"""The batch script of a job, run without Slurm: what it needs of it is the environment, and signals."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.remote.cluster import slurm
from tests.cluster.lab import wait_until

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/", "SLURM_JOB_ID": "7", "SLURM_CLUSTER_NAME": "lab"}
SERVER = """RUN='{run}'
LOG='{run}/log'
set -- sh -c 'trap "echo saved >>\"$1/log\"; exit 0" TERM; : >"$1/up"; while :; do sleep 1 & wait $!; done' - '{run}'
"""
"""What launch.sh hands over for a server; this one ends as ours does, after it has put its work away."""


@contextlib.contextmanager
def batch_script(
    shell: str, root: Path, path: str = os.environ["PATH"], **more: str
) -> Iterator[subprocess.Popen[str]]:
    """Run the script as Slurm does: with all that it starts in one group."""
    words = [shell, "sh"] if shell == "busybox" else [shell]
    script = root / "script"
    script.write_text(slurm.batch_script(str(root / "dls")))
    process = subprocess.Popen(
        [*words, str(script)], env={**ENVIRONMENT, **more, "PATH": path}, start_new_session=True, text=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("to_all", [True, False])
def test_a_signal_ends_the_script(shell: str, to_all: bool, short_folder: Path) -> None:
    """Slurm signals all processes of a job: the server is waited for, then the script ends and leaves nothing."""
    job = short_folder / "dls" / "jobs" / "lab-7"
    run = short_folder / "j7" / "run"
    run.mkdir(parents=True)
    log = short_folder / "kept"
    with batch_script(shell, short_folder) as process:
        wait_until(lambda: (job / "entrance").exists(), "the entrance")
        (job / "s.part").write_text(SERVER.format(run=run).replace(f"{run}/log", str(log)).replace("$1/log", str(log)))
        (job / "s.part").rename(job / "s.start")
        os.kill(process.pid, signal.SIGUSR2)
        wait_until(lambda: (run / "up").exists() and (job / "s.pid").exists(), "the server")
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
    assert "saved" in log.read_text()
    assert not job.exists() and not run.parent.exists()


@pytest.mark.parametrize("sshd", ["echo 'Bad configuration option: SetEnv' >&2; exit 255", '[ "$1" = -t ]'])
def test_a_node_whose_sshd_does_not_do(sshd: str, short_folder: Path) -> None:
    """The job goes on where the node's sshd is too old or does not start: port 0 says that a step is the way in."""
    commands = short_folder / "bin"
    commands.mkdir()
    (commands / "sshd").write_text(f"#!/bin/sh\n{sshd}\n")
    (commands / "sshd").chmod(0o755)
    job = short_folder / "dls" / "jobs" / "lab-7"
    with batch_script(SHELLS[0], short_folder, f"{commands}:{ENVIRONMENT['PATH']}") as process:
        wait_until(lambda: (job / "entrance").exists(), "the entrance")
        assert (job / "entrance").read_text().split()[3] == "0" and not (job / "failed").exists()
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0


def test_the_environment_of_sshd(short_folder: Path) -> None:
    """What a job has for its programs goes into the configuration, also the folder whose path has a space."""
    root = short_folder / "a b"
    root.mkdir()
    with batch_script(SHELLS[0], root, NVIDIA_DRIVER_CAPABILITIES="compute,utility", HTTP_PROXY='a"b') as process:
        job = root / "dls" / "jobs" / "lab-7"
        wait_until(lambda: (job / "entrance").exists(), "the entrance")
        line = next(line for line in (job / "sshd_config").read_text().splitlines() if line.startswith("SetEnv "))
        words = shlex.split(line)
        assert f"DLS_JOB={job}" in words and "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in words
        assert "SLURM_JOB_ID=7" in words and "HTTP_PROXY" not in line
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
