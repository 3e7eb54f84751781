"""Real parts for the tests: an OpenSSH server, a remote directory with its environment, a live HTTP server."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.remote.commands import stop_server
from dls.remote.login import LoginOptions, resolve_hops
from dls.remote.progress import Silent
from dls.remote.session import ServerOptions, connect
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.user.folders import VARIABLE
from dls.server import locks
from tests.support.http_server import LiveServer, serving

KEPT = [Path(place) / f"dls-{os.getuid()}" for place in ("/var/tmp", "/dev/shm")]


@pytest.fixture(scope="session", autouse=True)
def interruptible_children() -> None:
    """Let child processes end with Ctrl-C: a run in the background of a shell would hand on that it is ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def privilege_separation() -> None:
    """Make the folder that sshd needs as root for good: whoever makes it only for a while removes it for all."""
    if os.geteuid() == 0:
        sshd.PRIVILEGE_SEPARATION.mkdir(mode=0o755, parents=True, exist_ok=True)


@pytest.fixture(scope="session", autouse=True)
def no_sessions_left() -> Iterator[None]:
    """Remove the sessions that servers of the tests kept where servers keep them by default.

    Of several runs at once the last one does so: a look at a session's lock holds that lock for a moment.
    """
    before = {path for place in KEPT if place.is_dir() for path in place.iterdir()}
    with (Path(tempfile.gettempdir()) / f"dls-tests-{os.getuid()}.lock").open("w") as runs:
        fcntl.flock(runs, fcntl.LOCK_SH)
        yield
        try:
            fcntl.flock(runs, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        for path in {path for place in KEPT if place.is_dir() for path in place.iterdir()} - before:
            if not is_served(KEPT[0] / path.name):
                shutil.rmtree(path, ignore_errors=True)


def is_served(home: Path) -> bool:
    """Whether a server runs that keeps its sessions there: of another run of the tests, say."""
    for lock in home.glob("*.lock"):
        with lock.open("a") as stream:
            if not locks.try_lock(stream):
                return True
    return False


@pytest.fixture(scope="session", autouse=True)
def user_folder() -> Iterator[Path]:
    """A folder in place of the user's own for profiles and all that dls remembers, in child processes too."""
    folder = Path(tempfile.mkdtemp(prefix="dls-u-"))
    os.environ[VARIABLE] = str(folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of that kind for one test."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "user"))
    return tmp_path / "user"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="dls-t-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def host() -> Iterator[sshd.Server]:
    """A real OpenSSH server on loopback."""
    if sshd.find_sshd() is None:
        pytest.fail("OpenSSH's server is not installed (on Debian and Ubuntu: apt install openssh-server)")
    folder = Path(tempfile.mkdtemp(prefix="dls-h-"))
    with sshd.running(folder) as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def connection(host: sshd.Server) -> Iterator[Connection]:
    """A connection to it."""
    target = resolve_hops("dls-demo", LoginOptions(ssh_config=host.config))[-1]
    opened = Connection.open(target, NoPrompter())
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def remote_dir(host: sshd.Server) -> Iterator[str]:
    """A remote directory in which the environment and our code are in place, and no server runs."""
    folder = Path(tempfile.mkdtemp(prefix="dls-r-"))
    login = LoginOptions(ssh_config=host.config, remote_dir=f"{folder}/host")
    connect("dls-demo", server=ServerOptions("region"), login=login).close(stop_server=True)
    yield f"{folder}/host"
    subprocess.run(["pkill", "-f", f"launch-file {folder}/"], check=False)
    shutil.rmtree(folder, ignore_errors=True)
    for place in kept_in(f"{folder}/host"):
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def clean(host: sshd.Server, remote_dir: str) -> Iterator[str]:
    """The remote directory, with no server running before or after."""
    login = LoginOptions(ssh_config=host.config, remote_dir=remote_dir)
    stop_server("dls-demo", login, NoPrompter(), Silent())
    yield remote_dir
    stop_server("dls-demo", login, NoPrompter(), Silent())


def kept_in(remote_dir: str) -> list[Path]:
    """Return where a server of the remote directory keeps its sessions."""
    key = hashlib.sha256(remote_dir.encode()).hexdigest()[:8]
    return [place / key for place in KEPT]


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    """A live server with the region engine."""
    with serving() as server:
        yield server
