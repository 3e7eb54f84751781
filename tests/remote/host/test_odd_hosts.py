"""Hosts that are not as they should be: a GPU driver that hangs, an unusable home, an old Python, a shared home."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dls
from dls import gpus
from dls.contract import BOOT_FILE, STATE_FILE, ServerState
from dls.demo import sshd
from dls.errors import HostError, ListenError
from dls.remote.commands import host as looked_at
from dls.remote.commands import read_log, stop_server
from dls.remote.host import install, landing, lock_files, send_uv
from dls.remote.host import probe as probing
from dls.remote.host.deploy import Deployment
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import Code, Requirements, requirements
from dls.remote.host.probe import Depth, HostReport, Place, ServerRecord
from dls.remote.host.refusals import raise_refusal
from dls.remote.host.scripts import render
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import Phase, Phases, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.shell import Completed
from dls.server import locks
from tests.support.accounts import reserved
from tests.support.connecting import connected, cut
from tests.support.disks import disk, disk_with_quota
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, is_gone, until

SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
STRANGER = 65534
"""Number of the user who is not ours."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts disks or gives files away, so it needs root")
HANGS = "trap '' TERM HUP; echo $$ >>{folder}/asked\nsleep 600 & echo $! >>{folder}/asked; wait"
"""An nvidia-smi that ignores SIGTERM, and whose child holds its output after it is killed."""
REPORT = HostReport(
    system="Linux", machine="x86_64", libc="glibc 2.36", hostname="gpu1", home="/home/ann", uid=1000,
    root="/home/ann/.dls", run_dir="/tmp/dls-1000/x", remote_key="x", filesystem="xfs", free_mib=5000,
)  # fmt: skip


class Notes(Silent):
    """Records the notes, and the phases that began."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.begun: list[str] = []
        self.is_open_again = False

    def begin(self, phase: str, text: str) -> None:
        self.begun.append(phase)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def link(self, is_open: bool, text: str) -> None:
        self.is_open_again = is_open


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


def test_a_home_that_could_not_hold_the_model_either() -> None:
    """With nnInteractive, the hint names the option for the model too; a place's free space is shown."""
    report = replace(REPORT, storage="quota", places=(Place("/scratch/ann/dls", 10240),))
    with pytest.raises(HostError, match="your quota there is used up") as caught:
        install.plan(report, requirements("nninteractive"), "c")
    assert "/scratch/ann/dls (10 GiB free)" in caught.value.hint and "--models-path" in caught.value.hint


@pytest.mark.parametrize("shell", SHELLS)
def test_a_run_directory_that_can_not_be_made(shell: str) -> None:
    """It is told from one of somebody else."""
    words = [shell, "sh"] if shell == "busybox" else [shell]
    script = render("private") + "make_private /proc/dls/run"
    done = subprocess.run([*words, "-s"], input=script, capture_output=True, text=True)
    with pytest.raises(HostError, match="/proc/dls/run can't be made on gpu1") as caught:
        raise_refusal("gpu1", Completed(done.returncode, done.stdout, done.stderr), "/proc/dls/run")
    assert "--remote-dir" in caught.value.hint


@contextmanager
def host_with_mounts(
    folder: Path, mounts: str, options: str = "", namespaces: str = "--mount --fork --kill-child"
) -> Iterator[sshd.Server]:
    """Run an OpenSSH server whose users alone see what these commands mount; its files are in the folder."""
    # unshare itself ignores SIGTERM while what it started runs.
    start = f'unshare {namespaces} sh -c \'{mounts} && exec {sshd.find_sshd()} "$@"\' sshd "$@" &'
    run = f'{start}\ntrap "kill -KILL $!" TERM\nwait $!'
    before = os.environ["PATH"]
    (folder / "sshd").mkdir()
    with ExitStack() as stack:
        os.environ["PATH"] = f"{program(folder, 'sshd', run)}:{before}"
        try:
            server = stack.enter_context(sshd.running(folder / "sshd", options=options))
        finally:
            os.environ["PATH"] = before
        yield server


@pytest.fixture
def alone() -> Iterator[None]:
    """Let no other run of the tests on this machine use the user's run directory in /var/tmp meanwhile."""
    with reserved("read-only-tmp"):
        yield


@pytest.mark.slow
@needs_root
@pytest.mark.usefixtures("alone")
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
        read_only = "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp"
        with host_with_mounts(folder, read_only, f"SetEnv HOME={folder}/home") as server:
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


OLD_PYTHON = "printf 'python\\t/usr/bin/python3\\t/usr/bin/python3.6\\t3.6.8\\t1\\t1\\n'"
"""A Python that says, as the probe asks it, that it is a 3.6 with pip: that of RHEL 8."""


@contextmanager
def host_with_python(folder: Path, python: str, options: str = "") -> Iterator[sshd.Server]:
    """Run an OpenSSH server on a host where this program is the only Python."""
    fake = program(folder, "old-python", python) / "old-python"
    names = [path for place in ("/usr/bin", "/usr/local/bin") for path in Path(place).glob("python*")]
    real = {path.resolve() for path in names if re.fullmatch(r"python[0-9.]*", path.name)}
    mounts = " && ".join(f"mount --bind {fake} {path}" for path in sorted(real))
    with host_with_mounts(folder, mounts, f"SetEnv PATH=/usr/bin:/bin HOME={folder}\n{options}") as server:
        yield server


def plan_there(connection: Connection, root: Path) -> install.InstallPlan:
    report = probing.probe(connection, str(root), Depth.ALL)
    return install.plan(report, Requirements(("six",), disk_mib=10), Code.installed().key)


@needs_root
@pytest.mark.parametrize("python", [OLD_PYTHON, "exit 127"], ids=["3.6", "none"])
@pytest.mark.parametrize("sftp", [True, False])
def test_uv_is_sent_to_a_host_whose_python_can_not_fetch_it(short_folder: Path, python: str, sftp: bool) -> None:
    """It is the locked one, runs there, belongs to its user alone, and is found by the next probe."""
    root = short_folder / "r"
    options = "" if sftp else "Subsystem sftp /bin/false"
    with host_with_python(short_folder, python, options) as server:
        login = LoginOptions(ssh_config=server.config)
        with closing(log_in("dls-demo", login, NoPrompter(), Phases(Silent()))) as connection:
            found = plan_there(connection, root)
            assert found.tool is install.Tool.SEND_UV
            path = send_uv.send_uv(connection, found.root, found.run_dir, found.uv_tags, Phase(Silent()))
            version = connection.run(f"{path} --version").stdout
            again = plan_there(connection, root)
    [locked] = re.findall(r"^uv==(\S+)", lock_files.read("uv"), re.M)
    assert version.split()[1] == locked
    assert again.tool is install.Tool.UV and again.uv == path == f"{root}/uv/bin/uv"
    assert [entry.name for entry in (root / "uv" / "bin").iterdir()] == ["uv"]
    assert all(entry.stat().st_mode & 0o077 == 0 for entry in (root, *root.rglob("*")))


@pytest.mark.parametrize(
    ("system", "machine", "libc", "first", "last"),
    [
        ("Linux", "x86_64", "glibc 2.28", "manylinux_2_28_x86_64", "musllinux_1_1_x86_64"),
        ("Linux", "aarch64", "musl libc (aarch64)", "musllinux_1_2_aarch64", "musllinux_1_1_aarch64"),
        ("Linux", "x86_64", "glibc 2.12", "musllinux_1_2_x86_64", "musllinux_1_1_x86_64"),
        ("Linux", "arm64", "", "musllinux_1_2_aarch64", "musllinux_1_1_aarch64"),
        ("Darwin", "arm64", "", "macosx_11_0_arm64", "macosx_11_0_arm64"),
        ("Darwin", "x86_64", "", "macosx_10_15_x86_64", "macosx_10_15_x86_64"),
    ],
)
def test_the_wheel_of_uv_fits_the_host(
    tmp_path: Path, system: str, machine: str, libc: str, first: str, last: str
) -> None:
    """Each kind of host gets tags for which the lock file has a wheel; pip finds it, and checks its hash."""
    report = replace(REPORT, system=system, machine=machine, libc=libc)
    tags = send_uv.platform_tags(report)
    assert (tags[0], tags[-1]) == (first, last)
    said = send_uv._run_pip([sys.executable, "-m", "pip"], tmp_path, tags)
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.stem.endswith(tuple(tag.rpartition("_")[2] for tag in tags)), said
    assert len(send_uv._unpack(wheel)) > 1 << 20


def test_a_host_for_which_there_is_no_uv() -> None:
    """Nothing is sent to it."""
    assert send_uv.platform_tags(replace(REPORT, machine="mips64")) == ()
    assert send_uv.platform_tags(replace(REPORT, system="FreeBSD")) == ()


def test_uv_that_can_not_be_fetched_here(tmp_path: Path, connection: Connection, short_folder: Path) -> None:
    """The error says that this computer could not fetch it, and what its pip said; the host is left as it was."""
    with pytest.raises(HostError, match="could not fetch it to send it there") as caught:
        send_uv.send_uv(connection, f"{short_folder}/r", f"{short_folder}/run", ("no_such_tag",), Phase(Silent()))
    assert "uv" in caught.value.detail and "pip" in caught.value.hint
    assert not (short_folder / "r").exists()


def managed_python() -> Path:
    """The folder of a Python 3.12 of this machine that is not the system's."""
    for python in (*Path.home().glob(".pyenv/versions/3.12.*/bin/python3.12"), Path(sys.base_prefix, "bin/python3.12")):
        if python.exists() and not str(python.resolve()).startswith(("/usr/bin/", "/usr/local/bin/")):
            return python.parent.parent
    pytest.skip("needs a Python 3.12 beside the system's")


@pytest.mark.slow
@needs_root
def test_a_host_with_an_old_python_is_set_up(short_folder: Path) -> None:
    """uv is sent, makes the environment from a Python of its own, and ITK-SNAP gets its answer."""
    root, python = short_folder / "r", managed_python()
    # Where uv would put the Python that it downloads.
    managed = root / "python" / f"cpython-{python.name}-linux-{os.uname().machine}-gnu"
    managed.mkdir(parents=True)
    root.chmod(0o700)
    for part in ("bin", "lib", "include"):
        (managed / part).symlink_to(python / part)
    with host_with_python(short_folder, OLD_PYTHON) as server:
        session, _ = connected(server, str(root))
        with session:
            assert ItkSnap(session.port).start()
            done = session.connection.run(f"readlink -f {root}/env/*/bin/python")
            assert done.stdout.startswith(f"{python}/")
            session.close(stop_server=True)


NODES = {"dls-node-a": "127.77.0.2", "dls-node-b": "127.77.0.3"}
"""Hosts that share a home, and their addresses on the loopback network."""
NAMESPACES = "--uts --mount --pid --fork --kill-child --mount-proc"


class Door(socketserver.ThreadingTCPServer):
    """A name that leads to one of the hosts, now to this one, now to that one: a port that passes connections on."""

    daemon_threads = allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Passage)
        self.port = int(self.server_address[1])
        self.node = "dls-node-a"


class Passage(socketserver.BaseRequestHandler):
    """Passes one connection on."""

    server: Door

    def handle(self) -> None:
        with socket.create_connection((NODES[self.server.node], self.server.port)) as there:
            back = threading.Thread(target=pump, args=(there, self.request), daemon=True)
            back.start()
            pump(self.request, there)
            back.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, and then end the target."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Cluster:
    """Two hosts with processes, names and local disks of their own, one home, and a name that leads to either."""

    folder: Path
    door: Door

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def names(self) -> Path:
        """The file in which the hosts look up each other's names."""
        return self.folder / "hosts"

    def login(self, host: str = "127.0.0.1") -> LoginOptions:
        """Return the options with which `login` is that name: of the door, or of one host."""
        known, config = self.folder / f"known-{host}", self.folder / f"config-{host}"
        keys = [" ".join((self.folder / node / "host_key.pub").read_text().split()[:2]) for node in NODES]
        known.write_text("".join(f"[{host}]:{self.door.port} {key}\n" for key in keys))
        config.write_text(
            f"Host login\n  HostName {host}\n  Port {self.door.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self.folder}/dls-node-a/sshd/id_ed25519\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {known}\n"
        )
        return LoginOptions(ssh_config=config)

    def connect(self, node: str, reporter: Notes | None = None) -> dls.Session:
        """Connect to the name of both, which leads to that host."""
        self.door.node = node
        return dls.connect("login", login=self.login(), local_port=free_port(), reporter=reporter)


@pytest.fixture
def cluster(short_folder: Path, remote_dir: str) -> Iterator[Cluster]:
    """Two hosts of which each knows the other by its name; the environment is in their home already."""
    with ExitStack() as stack:
        door = stack.enter_context(Door())
        threading.Thread(target=door.serve_forever, daemon=True).start()
        stack.callback(door.shutdown)
        found = Cluster(short_folder, door)
        root = found.home / ".dls"
        root.mkdir(parents=True, mode=0o700)
        (root / "env").symlink_to(f"{remote_dir}/env")
        found.names.write_text("".join(f"{address} {node}\n" for node, address in NODES.items()))
        for node in NODES:
            stack.enter_context(one_node(found, node))
        yield found


@contextmanager
def one_node(cluster: Cluster, node: str) -> Iterator[None]:
    """Run one of the hosts."""
    folder = cluster.folder / node
    mounts = [f"hostname {node}", f"mount --bind {cluster.names} /etc/hosts"]
    for number, place in enumerate(("/tmp", "/var/tmp", "/dev/shm")):
        local = Path(place) / f"dls-{os.getuid()}"
        local.mkdir(mode=0o700, exist_ok=True)
        (folder / str(number)).mkdir(parents=True, mode=0o700)
        mounts.append(f"mount --bind {folder}/{number} {local}")
    keys = f"AuthorizedKeysFile {cluster.folder}/dls-node-a/sshd/authorized_keys"
    options = f"SetEnv HOME={cluster.home}\nListenAddress {NODES[node]}:{cluster.door.port}\n{keys}"
    with host_with_mounts(folder, " && ".join(mounts), options, namespaces=NAMESPACES):
        key = ["ssh-keygen", "-y", "-f", str(folder / "sshd" / "host_key")]
        public = subprocess.run(key, capture_output=True, text=True, check=True).stdout
        (folder / "host_key.pub").write_text(public)
        yield


@needs_root
def test_hosts_with_one_home_share_what_is_installed_and_not_what_runs(cluster: Cluster) -> None:
    """Who names each of them gets a server on each; one is never taken for the other's, whatever the numbers of the
    processes, and each has its own run directory, log and secret, and is found again."""
    logins, reporter = [cluster.login(address) for address in NODES.values()], Notes()
    with dls.connect("login", login=logins[0], local_port=free_port()) as first:
        with dls.connect("login", login=logins[1], local_port=free_port(), reporter=reporter) as second:
            assert (first.report.hostname, second.report.hostname) == tuple(NODES)
            assert (first.state.host, second.state.host) == tuple(NODES)
            assert "install" not in reporter.begun and ItkSnap(second.port).start() and ItkSnap(first.port).start()
            assert first.state.log != second.state.log and first.state.secret != second.state.secret
            assert reporter.notes == []
        with dls.connect("login", login=logins[1], local_port=free_port()) as again:
            assert again.state == second.state
    assert len(list((cluster.home / ".dls" / "code").iterdir())) == 1


@needs_root
def test_a_login_that_lands_elsewhere_goes_on_to_the_server(cluster: Cluster) -> None:
    """The name leads to another host the second time, and the answers come from the server that runs; `stop` too finds
    it. Nothing is asked, and the host's key is one that is known for the name."""
    with cluster.connect("dls-node-a") as first:
        assert ItkSnap(first.port).start()
    reporter = Notes()
    with cluster.connect("dls-node-b", reporter) as second:
        assert second.state == first.state and second.report.hostname == "dls-node-a"
        assert reporter.notes == ["The server runs on dls-node-a: went there from dls-node-b."]
        assert ItkSnap(second.port).start()
    assert stop_server("login", cluster.login(), NoPrompter(), Silent())
    assert not list((cluster.home / ".dls" / "hosts").iterdir())
    with cluster.connect("dls-node-b") as third:
        assert third.report.hostname == "dls-node-b"


@needs_root
def test_a_login_that_lands_elsewhere_without_a_way_to_the_server(cluster: Cluster) -> None:
    """The person is told where the server is and gets another one, since their image is not there yet; `stop` tells it
    too, instead of that none runs."""
    with cluster.connect("dls-node-a"):
        pass
    cluster.names.write_text("")
    cluster.door.node = "dls-node-b"
    stopping, connecting = Notes(), Notes()
    assert not stop_server("login", cluster.login(), NoPrompter(), stopping)
    with cluster.connect("dls-node-b", connecting) as session:
        assert session.report.hostname == "dls-node-b" and ItkSnap(session.port).start()
    for reporter in (stopping, connecting):
        assert any("The server runs on dls-node-a, but the login to login landed on" in note for note in reporter.notes)


@needs_root
@pytest.mark.parametrize("has_way", [True, False])
def test_a_lost_link_comes_back_to_the_same_server(cluster: Cluster, has_way: bool) -> None:
    """A new login that lands on the other host goes on to the server; where that can't be, no other server is started,
    which would not have the sessions, but the next login that lands there serves them again."""
    reporter = Notes()
    with cluster.connect("dls-node-a", reporter) as session:
        snap, server = ItkSnap(session.port), session.state
        assert snap.start()
        cluster.door.node = "dls-node-b"
        if not has_way:
            cluster.names.write_text("")
        cut(session)
        if not has_way:
            until(lambda: any("runs on dls-node-a, but the login" in note for note in reporter.notes))
            cluster.door.node = "dls-node-a"
        until(lambda: reporter.is_open_again)
        assert session.state == server
        snap.upload(np.zeros((3, 3, 3), np.float32))
        assert snap.point(1, 1, 1).status == 200


@needs_root
def test_a_named_directory_that_hosts_share_holds_one_host_s_run_directories(cluster: Cluster) -> None:
    """The second host puts its own on a local disk, although the disk of the named directory says that it is local; it
    removes nothing of the first one's."""
    shared = str(cluster.home / ".dls")
    logins = [replace(cluster.login(address), remote_dir=shared) for address in NODES.values()]
    with dls.connect("login", login=logins[0], local_port=free_port()) as first:
        assert first.state.run_dir.startswith(f"{shared}/run/")
        with dls.connect("login", login=logins[1], local_port=free_port()) as second:
            assert second.state.run_dir.startswith(f"/tmp/dls-{os.getuid()}/")
            assert ItkSnap(second.port).start() and ItkSnap(first.port).start()
        assert (Path(first.state.run_dir) / "state.json").exists()
        with dls.connect("login", login=logins[0], local_port=free_port()) as again:
            assert again.state == first.state


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"boot": "another"}], ids=["host", "boot"])
def test_a_state_file_of_another_host_is_passed_over(
    connection: Connection, short_folder: Path, change: dict[str, Any]
) -> None:
    """Even where a process of the same number is a server here; so is the file of one from before the last start."""
    run = short_folder / "run" / "k"
    run.mkdir(parents=True)
    state = ServerState(
        pid=0, secret="s", code="c", request="r", socket="/s", port=None, engine="region", device="cpu", log="/l",
        host=os.uname().nodename, boot=Path(BOOT_FILE).read_text().strip(),
    )  # fmt: skip
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)", "--launch-file"]
    with subprocess.Popen(sleeper) as server:
        (run / STATE_FILE).write_text(replace(state, pid=server.pid).dump())
        assert len(probing.probe(connection, str(short_folder)).servers) == 1
        (run / STATE_FILE).write_text(replace(state, pid=server.pid, **change).dump())
        assert probing.probe(connection, str(short_folder)).servers == ()
        server.kill()


def test_a_lock_that_another_host_holds(tmp_path: Path) -> None:
    """A server of this host takes another lock, which keeps a second one of this host out."""
    lock = tmp_path / "k.lock"
    with lock.open("w") as stream:
        assert locks.try_lock(stream)
        stream.write("dls-node-a\n")
        stream.flush()
        with locks.exclusive(lock), pytest.raises(ListenError), locks.exclusive(lock):
            pass


@pytest.mark.parametrize(
    ("elsewhere", "here", "expected", "node"),
    [
        ([("a", "k", "login")], False, "", "a"),
        ([("a", "k", "login")], True, "", ""),
        ([("a", "other", "login")], False, "", ""),
        ([("a", "k", "a")], False, "", ""),
        ([("a", "k", "login"), ("b.c.de", "k", "b")], True, "b.c.de", "b.c.de"),
        ([("a", "k", "login")], False, "gpu1", ""),
        ([("a", "k", "LOGIN")], False, "gone", "a"),
        ([], False, "gone", ""),
    ],
)
def test_where_to_go(elsewhere: list[tuple[str, str, str]], here: bool, expected: str, node: str) -> None:
    """To the server of the same options and name, by preference the one used before; nowhere if that was here."""
    state = ServerState(
        pid=1, secret="s", code="c", request="k", socket="/s", port=None, engine="region", device="cpu", log="/l"
    )
    records = frozenset(ServerRecord.of(*parts) for parts in elsewhere)
    assert {ServerRecord.parse(record.file_name) for record in records} == records
    report = replace(REPORT, elsewhere=records, servers=(state,) if here else ())
    assert landing.find_node(report, {"k"}, "login", expected) == node
