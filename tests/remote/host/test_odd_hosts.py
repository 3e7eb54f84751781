"""Hosts that are not as they should be: a GPU driver that hangs, an unusable home, an old Python, a shared home."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest

import dls
from dls import gpus
from dls.demo import sshd
from dls.errors import HostError
from dls.remote.commands import host as looked_at
from dls.remote.commands import read_log, stop_server
from dls.remote.host.deploy import Deployment
from dls.remote.host.options import ServerOptions
from dls.remote.host.scripts import render
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.login import LoginOptions, log_in
from dls.remote.ssh.prompts import NoPrompter
from tests.support.connecting import connected
from tests.support.disks import disk, disk_with_quota
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, is_gone, until

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
STRANGER = 65534
"""Number of the user who is not ours."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts disks or gives files away, so it needs root")
HANGS = "trap '' TERM HUP; echo $$ >>{folder}/asked\nsleep 600 & echo $! >>{folder}/asked; wait"
"""An nvidia-smi that ignores SIGTERM, and whose child holds its output after it is killed."""


class Notes(Silent):
    """Records the notes, and the phases that began."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun: list[str] = []

    def begin(self, phase: str, text: str) -> None:
        self.begun.append(phase)

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


def home_that(fault: str, folder: Path) -> AbstractContextManager[Path]:
    """Return a home with that fault."""
    if fault == "quota":
        return disk_with_quota(folder, mib=20)
    if fault == "missing":
        return nullcontext(Path("/proc/home/ann"))
    return disk(folder, {"read-only": "ro", "noexec": "noexec", "full": "size=1m,nr_inodes=100"}[fault])


@needs_root
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("read-only", "its disk is read-only"),
        ("noexec", "no programs may run there"),
        ("missing", "the home directory does not exist"),
        ("quota", "your quota there is used up"),
        ("full", "1 MiB free; the packages need 600"),
    ],
)
def test_a_home_that_holds_nothing(fault: str, reason: str, short_folder: Path) -> None:
    """It is found before anything is installed, and the error offers the places of the host that would do."""
    scratch = short_folder / "scratch"
    scratch.mkdir(mode=0o700)
    with home_that(fault, short_folder / "home") as home:
        variables = f"HOME={home} SCRATCH={scratch} WORK={home}"
        with host_with(short_folder, f"{os.environ['PATH']} {variables}") as server:
            reporter = Notes()
            with pytest.raises(HostError) as caught:
                dls.connect("dls-demo", login=LoginOptions(ssh_config=server.config), reporter=reporter)
        assert reason in caught.value.message and f"{home}/.dls" in caught.value.message
        assert "--remote-dir" in caught.value.hint and f"{scratch}/dls (" in caught.value.hint
        assert str(home) not in caught.value.hint and "/var/tmp/root-dls (" in caught.value.hint
        assert "install" not in reporter.begun
        assert fault == "missing" or [path.name for path in home.iterdir()] == []


@needs_root
def test_a_home_that_is_full_to_the_last_byte(short_folder: Path) -> None:
    """A disk with no free space at all is told from one whose free space is unknown."""
    with disk(short_folder / "home", "size=1m") as home:
        subprocess.run(["dd", "if=/dev/zero", f"of={home}/much"], check=False, capture_output=True)
        options = f"{os.environ['PATH']} HOME={home}"
        with host_with(short_folder, options) as server, pytest.raises(HostError, match="its disk is full"):
            dls.connect("dls-demo", login=LoginOptions(ssh_config=server.config))


@pytest.mark.parametrize("shell", SHELLS)
@needs_root
def test_places_that_other_users_could_change_are_not_offered(shell: str, short_folder: Path) -> None:
    """Nor one where the user's directory is somebody else's already; one that is open, but sticky, is."""
    modes = {"own": 0o700, "sticky": 0o1777, "open": 0o777, "taken": 0o1777, "foreign": 0o755}
    for name, mode in modes.items():
        (short_folder / name).mkdir()
        (short_folder / name).chmod(mode)
    os.chown(short_folder / "foreign", STRANGER, STRANGER)
    (short_folder / "taken" / "root-dls").mkdir()
    os.chown(short_folder / "taken" / "root-dls", STRANGER, STRANGER)
    folders = " ".join(f"{short_folder}/{name}" for name in modes)
    lines = f"list_folders() {{ printf '%s\\n' {folders}; }}\nlist_places\n"
    words = [shell, "sh"] if shell == "busybox" else [shell]
    text = render("storage", "trusted", DISK_MIB=1) + lines
    done = subprocess.run([*words, "-s"], input=text, capture_output=True, text=True, check=True)
    places = [line.partition("\t")[2] for line in done.stdout.splitlines()]
    assert places == [f"{short_folder}/own/dls", f"{short_folder}/sticky/root-dls"]
    assert sorted(path.name for path in short_folder.rglob("*")) == sorted([*modes, "root-dls"])


@contextmanager
def host_with_read_only_tmp(folder: Path) -> Iterator[sshd.Server]:
    """Run an OpenSSH server for whose users /tmp is read-only; its files and its users' home are in the folder."""
    mount = "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp"
    run = f'exec unshare --mount sh -c \'{mount} && exec {sshd.find_sshd()} "$@"\' sshd "$@"'
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{program(folder, 'sshd', run)}:{before}"
    try:
        with sshd.running(folder, options=f"SetEnv HOME={folder}/home") as server:
            yield server
    finally:
        os.environ["PATH"] = before


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("is_taken", [False, True])
def test_a_read_only_tmp(remote_dir: str, is_taken: bool) -> None:
    """The run directory is in another place, private like one in /tmp; the next connect and stop find the server."""
    folder = Path(tempfile.mkdtemp(prefix="dls-t-", dir="/var/tmp"))
    place, root = Path(f"/var/tmp/dls-run-{os.getuid()}"), folder / "home" / ".dls"
    shutil.rmtree(place, ignore_errors=True)
    root.mkdir(mode=0o700, parents=True)
    (root / "env").symlink_to(f"{remote_dir}/env")
    if is_taken:
        place.mkdir()
        os.chown(place, STRANGER, STRANGER)
    try:
        with host_with_read_only_tmp(folder) as server:
            login = LoginOptions(ssh_config=server.config)
            with dls.connect("dls-demo", login=login, local_port=free_port()) as first:
                assert ItkSnap(first.port).start()
                assert first.state.run_dir.startswith(f"{place}-" if is_taken else f"{place}/")
                run = Path(first.state.run_dir)
                assert all(path.stat().st_mode & 0o077 == 0 for path in (run, run.parent))
            with dls.connect("dls-demo", login=login, local_port=free_port()) as second:
                assert second.state.pid == first.state.pid
            assert stop_server("dls-demo", login, NoPrompter(), Silent())
    finally:
        for left in (folder, place, *place.parent.glob(f"{place.name}-*")):
            shutil.rmtree(left, ignore_errors=True)
