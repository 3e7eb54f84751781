"""The run directory in /tmp, which another user can make first."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dls
from dls.contract import STATE_FILE
from dls.demo import sshd
from dls.remote.commands import stop_server
from dls.remote.host import probe as probing
from dls.remote.host.probe import Depth, HostReport
from dls.remote.progress import Silent
from dls.remote.ssh.prompts import NoPrompter
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port

STRANGER = 65534
"""Number of the user who is not ours."""
USER = 41_000 + os.getpid() % 4_000
"""Number of a user of ours, of whom nothing lies in /tmp yet."""
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="acts as two other users, so it needs root")


@dataclass(frozen=True)
class Account:
    """A user of this machine, in whose place in /tmp a stranger sits."""

    home: Path
    uid: int
    taken: Path
    """The directory /tmp/dls-UID, which is the stranger's."""

    def probe(self, shell: str = "sh") -> HostReport:
        """Run the probe as the user."""
        script = probing.script("~/.dls", Depth.SERVER)
        words = [shell, "sh"] if shell == "busybox" else [shell]
        done = subprocess.run(
            [*words, "-s"], input=script, capture_output=True, text=True, check=True,
            user=self.uid, group=self.uid, extra_groups=[], env={**os.environ, "HOME": str(self.home)}, cwd="/",
        )  # fmt: skip
        return probing.parse(done.stdout, "~/.dls")

    @property
    def places(self) -> list[Path]:
        """The directories with random names."""
        return list(Path("/tmp").glob(f"dls-{self.uid}-*"))


@pytest.fixture
def account() -> Iterator[Account]:
    """A user without an entry in the system's lists; a stranger has made its directory in /tmp."""
    home = Path(tempfile.mkdtemp(prefix="dls-u-"))
    os.chown(home, USER, USER)
    made = Account(home, USER, Path(f"/tmp/dls-{USER}"))
    made.taken.mkdir()
    os.chown(made.taken, STRANGER, STRANGER)
    yield made
    for path in (home, made.taken, *made.places, *(Path(place) / f"dls-{USER}" for place in ("/var/tmp", "/dev/shm"))):
        shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_strangers_directory_stops_nobody(account: Account, shell: str) -> None:
    """Row 13: the run directory gets a random name, which the remote directory keeps; both are the user's alone."""
    chosen = account.probe(shell).run_dir
    assert [str(place) for place in account.places] == [chosen]
    found = Path(chosen).stat()
    assert found.st_uid == account.uid and stat.S_IMODE(found.st_mode) == 0o700
    [record] = (account.home / ".dls").glob("run-*")
    assert record.read_text() == f"{chosen}\n" and stat.S_IMODE(record.stat().st_mode) == 0o600
    assert account.probe(shell).run_dir == chosen and len(account.places) == 1


@pytest.mark.parametrize("kind", ["file", "link", "loop"])
def test_whatever_the_stranger_made(account: Account, kind: str) -> None:
    """Row 13: a file, a link to a directory of the user's own, or a link to nowhere is passed over too."""
    account.taken.rmdir()
    if kind == "file":
        account.taken.write_text("")
    else:
        account.taken.symlink_to(account.home if kind == "link" else account.taken)
    os.lchown(account.taken, STRANGER, STRANGER)
    assert account.probe().run_dir == str(account.places[0])
    account.taken.unlink()


def test_a_record_of_a_stranger_counts_for_nothing(account: Account) -> None:
    """Row 13: nor does one that leads to their directory, or out of /tmp; another directory is made and recorded."""
    first = Path(account.probe().run_dir)
    [record] = (account.home / ".dls").glob("run-*")
    os.chown(first, STRANGER, STRANGER)
    second = account.probe().run_dir
    assert second != str(first) and record.read_text() == f"{second}\n"
    for text in (str(account.home), f"/tmp/dls-{account.uid}-x/../../{account.home}", ""):
        record.write_text(text)
        assert account.probe().run_dir not in (text, second)
    record.write_text(f"{second}\n")
    os.chown(record, STRANGER, STRANGER)
    assert account.probe().run_dir != second
    first.rmdir()


def test_probes_at_the_same_time_agree(account: Account) -> None:
    """Row 13: the first one's directory counts."""
    script = probing.script("~/.dls", Depth.SERVER)
    several = [
        subprocess.Popen(
            ["sh", "-s"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            user=account.uid, group=account.uid, extra_groups=[], env={**os.environ, "HOME": str(account.home)},
        )
        for _ in range(8)
    ]  # fmt: skip
    outputs = [process.communicate(script)[0] for process in several]
    assert {probing.parse(text, "~/.dls").run_dir for text in outputs} == {account.probe().run_dir}


def test_a_server_is_found_in_either_place(account: Account) -> None:
    """Row 13: one that was started before the stranger came or after it had gone is still found."""
    second = Path(account.probe().run_dir)
    account.taken.rmdir()
    first = Path(account.probe().run_dir)
    assert first.parent == account.taken
    sleeper = ["/bin/sh", "-c", "echo; read -r line", "--launch-file"]
    with subprocess.Popen(
        sleeper, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=account.uid, group=account.uid, extra_groups=[]
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        state = {
            "format": 1, "pid": process.pid, "secret": "s", "code": "c", "request": "r", "socket": "/s", "port": None,
            "engine": "region", "device": "cpu", "log": "/l",
        }  # fmt: skip
        for place in (first, second):
            run = place / "0123"
            run.mkdir(parents=True)
            (run / STATE_FILE).write_text(json.dumps(state))
        for path in (account.taken, *account.taken.rglob("*"), *second.rglob("*")):
            os.chown(path, account.uid, account.uid)
        found = {server.run_dir for server in account.probe().servers}
        process.kill()
    assert found == {str(first / "0123"), str(second / "0123")}


@pytest.fixture
def own_host(account: Account) -> Iterator[sshd.Server]:
    """An OpenSSH server that logs in as the user."""
    folder, name = Path(tempfile.mkdtemp(prefix="dls-h-")), f"dls{USER}"
    folder.chmod(0o755)
    subprocess.run(["useradd", "-p", "*", "-u", str(USER), "-d", str(account.home), "-s", "/bin/sh", name], check=True)
    with sshd.running(folder) as server:
        server.config.write_text(server.config.read_text().replace("User root", f"User {name}"))
        yield server
    subprocess.run(["pkill", "-U", str(USER)], check=False)
    subprocess.run(["userdel", "-f", name], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_stranger_does_not_keep_a_user_from_working(account: Account, own_host: sshd.Server) -> None:
    """Row 13: connect, connect again and stop work on the run directory with a random name."""
    login = dls.LoginOptions(ssh_config=own_host.config)
    with dls.connect("dls-demo", login=login, local_port=free_port()) as first:
        assert ItkSnap(first.port).start()
        assert first.state.run_dir.startswith(f"/tmp/dls-{account.uid}-")
    with dls.connect("dls-demo", login=login, local_port=free_port()) as second:
        assert second.state.pid == first.state.pid
    assert stop_server("dls-demo", login, NoPrompter(), Silent())
