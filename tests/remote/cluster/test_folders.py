"""The folders of jobs in a home that several clusters share; Slurm's commands print what it prints."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dls.remote.cluster import slurm
from dls.remote.cluster.options import ClusterOptions

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
COMMANDS = {
    "scontrol": "printf 'Configuration data\\nClusterName             = lab\\nCompleteWait            = 0 sec\\n'",
    "squeue": "echo '5|RUNNING|None|N/A|1:00|n|p|'",
    "sbatch": "cat >/dev/null; echo '6;lab'",
}


@pytest.fixture
def commands(short_folder: Path) -> Path:
    """A folder with Slurm's commands."""
    folder = short_folder / "bin"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("shell", SHELLS)
def test_only_a_cluster_s_own_folders_are_cleared(shell: str, commands: Path) -> None:
    """Folders of killed jobs go when one is submitted, and old logs; not those of a cluster that shares the home."""
    root = commands.parent / "dls"
    kept = {"lab-5", "other-4", "other-5", "lab-east-4", "lab-6"}
    for name in (*kept - {"lab-6"}, "lab-4"):
        (root / "jobs" / name).mkdir(parents=True)
    (root / "log").mkdir()
    for name, age in (("job-3.log", 8), ("job-4.log", 1), ("server-n.log", 8)):
        (root / "log" / name).touch()
        then = (root / "log" / name).stat().st_mtime - age * 86400
        os.utime(root / "log" / name, (then, then))
    root.chmod(0o700)
    script = slurm.submit_script(str(root), ClusterOptions(), "ssh-ed25519 AAAA", besides="5")
    words = [shell, "sh"] if shell == "busybox" else [shell]
    environment = {"PATH": f"{commands}:{os.environ['PATH']}", "HOME": str(commands.parent)}
    done = subprocess.run([*words, "-s"], input=script, env=environment, capture_output=True, text=True, check=True)
    assert "job\t5|RUNNING" in done.stdout and "submitted\t6" in done.stdout
    assert {path.name for path in (root / "jobs").iterdir() if path.is_dir()} == kept
    assert {path.name for path in (root / "log").iterdir()} == {"job-4.log", "server-n.log"}
    assert (root / "jobs" / "lab-6" / "authorized_keys").read_text() == "ssh-ed25519 AAAA\n"
