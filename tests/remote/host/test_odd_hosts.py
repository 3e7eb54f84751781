"""Hosts that are not as they should be: a GPU driver that hangs, an unusable home, an old Python, a shared home."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dls import gpus
from dls.demo import sshd
from dls.remote.commands import host as looked_at
from dls.remote.commands import read_log, stop_server
from dls.remote.host.deploy import Deployment
from dls.remote.host.options import ServerOptions
from dls.remote.host.scripts import render
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.prompts import NoPrompter
from tests.support.connecting import connected
from tests.support.processes import is_gone, until

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
HANGS = "trap '' TERM HUP; echo $$ >>{folder}/asked\nsleep 600 & echo $! >>{folder}/asked; wait"
"""An nvidia-smi that ignores SIGTERM, and whose child holds its output after it is killed."""


class Notes(Silent):
    """Records the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def program(folder: Path, name: str, text: str) -> Path:
    """Write a program of ours, and return its folder."""
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path.parent


@contextmanager
def host_with(folder: Path, path: str, options: str = "") -> Iterator[sshd.Server]:
    """Run an OpenSSH server on which commands are looked up in that path."""
    (folder / "sshd").mkdir()
    with sshd.running(folder / "sshd", options=f"SetEnv PATH={path}\n{options}") as server:
        yield server


@pytest.fixture
def hanging(short_folder: Path) -> Iterator[Path]:
    """A folder with an nvidia-smi that hangs, and that writes into the file `asked` whenever it is run."""
    yield program(short_folder, "nvidia-smi", HANGS.format(folder=short_folder))
    for number in asked(short_folder):
        subprocess.run(["kill", "-KILL", str(number)], check=False, capture_output=True)


def asked(folder: Path) -> list[int]:
    """The numbers of the processes in which nvidia-smi was run."""
    path = folder / "asked"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def gpu_script(seconds: int) -> str:
    """Return the library that asks nvidia-smi, which may take so many seconds."""
    return render("gpus", QUERY=gpus.query(), OLD_QUERY=gpus.query(gpus.FIELDS[:-1]), GPU_SECONDS=seconds)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_driver_that_hangs_is_waited_for_within_a_limit(shell: str, hanging: Path, short_folder: Path) -> None:
    """The answer comes although nvidia-smi ignores SIGTERM and its output stays open; then it is killed."""
    text = gpu_script(seconds=1) + "say_gpus\nsay after 1\n"
    words = [shell, "sh"] if shell == "busybox" else [shell]
    environment = {**os.environ, "PATH": f"{hanging}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*words, "-s"], input=text, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "gpus\t1\nhangs\t1\nafter\t1\n"
    nvidia_smi, _ = asked(short_folder)
    until(lambda: is_gone(nvidia_smi))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo '0, A, 1, 1, 580.1, 9.0'", ["0, A, 1, 1, 580.1, 9.0"]),
        ("printf '0, A, 1, 1, 580.1, 9.0'", ["0, A, 1, 1, 580.1, 9.0"]),
        ("case $* in *compute_cap*) echo no; exit 2 ;; *) echo '0, A, 1, 1, 450.1' ;; esac", ["0, A, 1, 1, 450.1"]),
        ("echo failed; exit 9", []),
        (":", []),
    ],
)
def test_the_gpus_of_a_driver_that_answers(shell: str, text: str, expected: list[str], short_folder: Path) -> None:
    """Each line is handed on; an old driver is asked again without what it does not know."""
    folder = program(short_folder, "nvidia-smi", text)
    words = [shell, "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*words, "-s"], input=gpu_script(seconds=60) + "say_gpus\n", capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}, timeout=30,
    )  # fmt: skip
    said = [line.partition("\t")[2] for line in done.stdout.splitlines() if line.startswith("gpu\t")]
    assert said == expected and "hangs" not in done.stdout


def test_gpus_are_asked_for_only_where_they_matter(hanging: Path, short_folder: Path, remote_dir: str) -> None:
    """Not in stop, logs and what else looks for servers only, nor to start or to find the region engine."""
    with host_with(short_folder, f"{hanging}:/usr/bin:/bin") as server:
        login = LoginOptions(ssh_config=server.config, remote_dir=remote_dir)
        session, _ = connected(server, remote_dir)
        session.close()
        connected(server, remote_dir)[0].close()
        with looked_at("dls-demo", login, NoPrompter(), Silent()) as (_, report):
            assert len(report.servers) == 1
        assert stop_server("dls-demo", login, NoPrompter(), Silent())
        assert not stop_server("dls-demo", login, NoPrompter(), Silent())
        read_log("dls-demo", login, NoPrompter(), Silent(), lines=1, follow=False, write=lambda line: None)
    assert asked(short_folder) == []


@pytest.mark.slow
def test_the_user_is_told_of_a_driver_that_hangs(hanging: Path, short_folder: Path) -> None:
    """The host is usable without its GPU, and the note says why it is not used."""
    with host_with(short_folder, f"{hanging}:/usr/bin:/bin") as server:
        reporter = Notes()
        login = LoginOptions(ssh_config=server.config, remote_dir=f"{short_folder}/r")
        connection = log_in("dls-demo", login, NoPrompter(), Phases(reporter))
        found = Deployment.probe(login, ServerOptions("nninteractive"), connection, Phases(reporter))
        connection.close()
    assert found.report.gpus == () and found.report.gpus_hang and found.report.full
    [note] = reporter.notes
    assert "nvidia-smi on dls-demo does not answer" in note
