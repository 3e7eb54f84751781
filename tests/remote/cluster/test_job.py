"""The batch script of a job, run without Slurm: what it needs of it is the environment, and signals."""

from __future__ import annotations

import contextlib
import os
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
def batch_script(shell: str, root: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the script as Slurm does: with all that it starts in one group."""
    words = [shell, "sh"] if shell == "busybox" else [shell]
    script = root / "script"
    script.write_text(slurm.batch_script(str(root / "dls")))
    process = subprocess.Popen([*words, str(script)], env=ENVIRONMENT, start_new_session=True, text=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("to_all", [True, False])
def test_a_signal_ends_the_script(shell: str, to_all: bool, short_folder: Path) -> None:
    """Slurm signals all processes of a job: its server is waited for, then the script ends and leaves nothing behind."""
    job = short_folder / "dls" / "jobs" / "7"
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
