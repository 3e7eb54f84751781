"""A host with nnInteractive and the tiny model, `dls connect` in front of it, and what can happen to both."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dls.demo import sshd
from tests.conftest import kept_in
from tests.support.connect_process import ConnectProcess, children_of, engine_of, kill_all, server_of
from tests.support.connecting import command
from tests.support.host_environment import lend_packages
from tests.support.nninteractive import MODEL
from tests.support.processes import is_gone, until


class Viewed:
    """A host behind a real sshd on loopback, and the `dls connect` that leads to it."""

    def __init__(self, host: sshd.Server, remote_dir: str, folder: Path, *options: str) -> None:
        self.remote_dir = remote_dir
        self._host, self._folder = host, folder
        self._options = ("--engine", "nninteractive", "--model", str(MODEL), *options)
        self.connect = self._start()

    def _start(self, port: int | None = None) -> ConnectProcess:
        options = ("-F", self._host.config, "--remote-dir", self.remote_dir, *self._options, "dls-demo")
        return ConnectProcess(self._folder, *options, port=port)

    @property
    def port(self) -> int:
        """The local port."""
        return self.connect.port

    def folders_of(self, session: Any) -> list[Path]:
        """Return the folders with files of a client's session on the host."""
        name = str(uuid.UUID(hex=session._lease_token))
        return [root / name for root in kept_in(self.remote_dir) if (root / name).exists()]

    def kill_server(self) -> None:
        """Kill the server with SIGKILL."""
        self._wait_for(server_of(self.remote_dir), signal.SIGKILL)

    def kill_engine(self) -> None:
        """Kill the engine's process with SIGKILL."""
        self._wait_for(engine_of(self.remote_dir), signal.SIGKILL)

    def _wait_for(self, pid: int, number: int) -> None:
        os.kill(pid, number)
        until(lambda: is_gone(pid))

    def cut_link(self) -> None:
        """Kill the processes of sshd that serve `dls connect`."""
        pids = children_of(self._sshd())
        assert pids, "nobody is connected"
        kill_all(pids)

    def _sshd(self) -> int:
        config = str(self._host.config.parent / "sshd_config").encode()
        # sshd writes its command line anew, in a single string.
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if not is_gone(int(path.parent.name)) and config in path.read_bytes():
                    return int(path.parent.name)
        raise AssertionError("no sshd")

    def stop_server(self) -> None:
        """End the server with `dls stop`, as on another computer."""
        pid = server_of(self.remote_dir)
        subprocess.run(command(self._host, self.remote_dir, "stop"), check=True, capture_output=True, timeout=90)
        assert is_gone(pid)

    def wait_for_idle_end(self) -> None:
        """Wait until the server has ended because nobody asked for anything."""
        try:
            pid = server_of(self.remote_dir)
        except AssertionError:  # it has ended already
            return
        until(lambda: is_gone(pid), 60)

    def kill_connect(self) -> None:
        """Kill `dls connect` with SIGKILL, and start it again on the same port."""
        port = self.port
        self.connect.kill()
        self.start_again(port)

    def start_again(self, port: int) -> None:
        """Start another `dls connect`, on this port."""
        self.connect = self._start(port)

    def close(self) -> None:
        """End `dls connect` and the server."""
        self.connect.close()
        subprocess.run(command(self._host, self.remote_dir, "stop"), check=False, capture_output=True, timeout=90)


@contextlib.contextmanager
def lending() -> Iterator[str]:
    """Yield a remote directory with the packages of nnInteractive in place."""
    folder = Path(tempfile.mkdtemp(prefix="dls-v-"))
    lend_packages(f"{folder}/host")
    try:
        yield f"{folder}/host"
    finally:
        for place in (folder, *kept_in(f"{folder}/host")):
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def lent() -> Iterator[str]:
    """A remote directory with the packages of nnInteractive in place."""
    with lending() as remote_dir:
        yield remote_dir


@pytest.fixture(scope="module")
def viewed(host: sshd.Server, lent: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewed]:
    """A `dls connect` to a server with nnInteractive."""
    opened = Viewed(host, lent, tmp_path_factory.mktemp("connect"))
    yield opened
    opened.close()


@pytest.fixture
def impatient(host: sshd.Server, tmp_path: Path) -> Iterator[Viewed]:
    """One whose server ends when nobody asks for anything for less than two seconds.

    It has a remote directory of its own: a server that runs already is used whatever its time of idleness.
    """
    with lending() as remote_dir:
        opened = Viewed(host, remote_dir, tmp_path, "--idle", "0.03")
        yield opened
        opened.close()
