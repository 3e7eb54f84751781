"""The server on the host is started, replaced, repaired, ended and found again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from dls.contract import ServerState
from dls.demo import sshd
from dls.errors import DlsError, HostError, LaunchError, TargetError
from dls.remote.host import install, launch, status
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import Code, requirements
from dls.remote.host.probe import Depth, probe
from dls.remote.login import LoginOptions, resolve_hops
from dls.remote.progress import Phase, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from tests.support.connecting import command, connected
from tests.support.itksnap import ItkSnap
from tests.support.processes import is_gone, until


def test_other_code_replaces_the_server(host: sshd.Server, clean: str) -> None:
    """A server that runs other code than its state file says is ended, and one with our code is started."""
    first, _ = connected(host, clean)
    first.close()
    state = Path(first.state.run_dir) / "state.json"
    fields = json.loads(state.read_text())
    state.write_text(json.dumps({**fields, "code": "other", "version": "99.0"}))
    second, _ = connected(host, clean)  # the server's status does not fit its state file
    assert is_gone(first.state.pid) and second.state.pid != first.state.pid
    second.close()


def test_a_server_of_newer_code_stays(host: sshd.Server, clean: str) -> None:
    """A client of an older version uses it; a client of a newer version replaces an older server."""
    code = Code.installed()
    newer = Code((*code.files[:-1], ("dls/newer.py", b"NEWER = True"), code.files[-1]))
    older, newest = "0.0.1", "99.0.0"
    first = _with_code(host, clean, newer, newest)
    with connected(host, clean)[0] as second:
        assert second.state.pid == first.pid and second.state.version == newest
    third = _with_code(host, clean, Code((*code.files, ("dls/older.py", b""))), older, replacing=first)
    fourth, _ = connected(host, clean)
    assert fourth.state.pid != third.pid and is_gone(third.pid)
    fourth.close()


def _with_code(
    host: sshd.Server, remote_dir: str, code: Code, version: str, replacing: ServerState | None = None
) -> ServerState:
    """Start a server of another version of dls, as a client of that version would."""
    files = dict(code.files)
    files["dls/__init__.py"] = re.sub(
        rb'__version__ = ".*"', f'__version__ = "{version}"'.encode(), files["dls/__init__.py"]
    )
    code = Code(tuple(files.items()))
    with connection_to(host) as connection:
        if replacing is not None:
            launch.stop(connection, replacing)
        report = probe(connection, remote_dir, Depth.ALL)
        plan = install.plan(report, requirements("region"), code.key)
        install.install(connection, plan, code, Phase(Silent()), own_caches=True)
        return launch.launch(connection, report, plan, ServerOptions("region"), code.key, None)


def test_servers_with_other_options_run_side_by_side(host: sshd.Server, clean: str) -> None:
    """Both run while clients are connected to them, and either one opens a session that the other has released."""
    with connected(host, clean)[0] as first, connected(host, clean, stand_in=True)[0] as second:
        assert second.state.pid != first.state.pid and not is_gone(first.state.pid)
        assert len(ItkSnap(second.port).get("/v2/models").json["models"]) == 2
        snap = ItkSnap(first.port)
        snap.start()
        snap.upload(np.zeros((3, 3, 3), np.float32))
        assert snap.point(1, 1, 1).status == 200
        busy = ItkSnap(second.port)
        busy.session = snap.session
        answer = busy.point(1, 1, 1)
        assert answer.status == 409 and "another server" in answer.error
        launch.stop(first.connection, first.state)
        busy.shape = (3, 3, 3)
        assert busy.mask(busy.point(1, 1, 1))[1, 1, 1]


def answers(connection: Connection, state: ServerState) -> bool:
    """Whether the server of the state answers as itself."""
    try:
        return bool(status.identify(connection, state))
    except DlsError:
        return False


def connection_to(host: sshd.Server) -> contextlib.closing[Connection]:
    return contextlib.closing(
        Connection.open(resolve_hops("dls-demo", LoginOptions(ssh_config=host.config))[-1], NoPrompter())
    )


def test_a_false_state_file_is_not_trusted(host: sshd.Server, clean: str) -> None:
    """Process number, secret and socket must be those of the server that answers."""
    first, _ = connected(host, clean)
    first.close()
    state = Path(first.state.run_dir) / "state.json"
    fields = json.loads(state.read_text())
    for change in ({"secret": "wrong"}, {"pid": os.getpid()}, {"socket": "/tmp/none"}):
        state.write_text(json.dumps({**fields, **change}))
        with connection_to(host) as connection:
            parsed = ServerState.parse(state.read_text(), str(state.parent))
            assert parsed is not None
            assert not answers(connection, parsed), change
    state.write_text(json.dumps(fields))


def test_a_server_that_was_killed_is_started_again(host: sshd.Server, clean: str) -> None:
    """The files that it left (state, socket, lock) do not prevent the start of the next one."""
    first, _ = connected(host, clean)
    first.close()
    os.kill(first.state.pid, signal.SIGKILL)
    with connected(host, clean)[0] as second:
        assert second.state.pid != first.state.pid
        assert ItkSnap(second.port).start()


def test_a_server_that_can_not_start(host: sshd.Server, clean: str) -> None:
    """The error has the sentence and the hint from the server's log."""
    with pytest.raises(LaunchError, match="ended before it was ready") as caught:
        connected(host, clean, device="cuda")
    assert "CPU only" in caught.value.message and caught.value.hint == "Leave out --device."
    with pytest.raises(HostError, match="no GPU number 7"):
        connected(host, clean, gpu=7)
    with pytest.raises(TargetError, match="no engine"):
        connected(host, clean, engine="magic")


def test_a_damaged_installation_is_repaired(host: sshd.Server, clean: str) -> None:
    """A missing package or broken code is reported and installed again; the session stays."""
    made, _ = connected(host, clean)
    snap = ItkSnap(made.port)
    snap.start()
    snap.upload(np.zeros((3, 3, 3), np.float32))
    made.close(stop_server=True)
    for numpy in Path(clean).glob("env/*/lib/python*/site-packages/numpy/__init__.py"):
        numpy.unlink()
    made, reporter = connected(host, clean)
    assert any("damaged" in note for note in reporter.notes) and "install" in reporter.phases
    snap.url = f"http://127.0.0.1:{made.port}"
    assert snap.point(1, 1, 1).status == 200
    made.close(stop_server=True)
    Path(f"{clean}/code/{Code.installed().key}/dls/server/serve.py").write_text("this is no Python")
    made, reporter = connected(host, clean)
    assert any("damaged" in note for note in reporter.notes)
    assert ItkSnap(made.port).start()
    made.close()


@pytest.mark.slow
def test_an_idle_server_ends_and_comes_back(host: sshd.Server, clean: str) -> None:
    """It stays while a client is connected, ends later, and the next server finds the session."""
    made, _ = connected(host, clean, idle_minutes=0.2)
    snap = ItkSnap(made.port)
    snap.start()
    snap.upload(np.zeros((3, 3, 3), np.float32))
    pid = made.state.pid
    # The client asks for the status every 5 s, and the server would end after 12 s without a request.
    deadline = time.monotonic() + 13
    until(lambda: is_gone(pid) or time.monotonic() > deadline)
    assert not is_gone(pid)
    made.close()
    until(lambda: is_gone(pid), 60)
    log = subprocess.run(command(host, clean, "logs", "-n", "50"), capture_output=True, text=True, check=True)
    assert "nobody has asked for anything" in log.stdout
    made, _ = connected(host, clean)
    snap.url = f"http://127.0.0.1:{made.port}"
    assert made.state.pid != pid and snap.point(1, 1, 1).status == 200
    made.close()


def test_the_sessions_command(host: sshd.Server, clean: str) -> None:
    """It lists the stored sessions with their sizes, with and without a server, and removes only what it is told to."""
    made, _ = connected(host, clean)
    snaps = [ItkSnap(made.port) for _ in range(3)]
    for snap in snaps:
        snap.start()
    snaps[0].upload(np.random.default_rng(0).normal(size=(30, 40, 50)).astype(np.float32))

    def list_sessions(*more: str) -> list[dict[str, object]]:
        done = subprocess.run(command(host, clean, "sessions", "--json", *more), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    there = {row["id"]: row for row in list_sessions()}
    ours = there[snaps[0].session]
    assert ours["size"] == [50, 40, 30] and ours["model"] == "region" and int(str(ours["bytes"])) > 200_000
    assert there[snaps[1].session]["size"] is None
    refused = subprocess.run(command(host, clean, "sessions", "--purge"), capture_output=True, text=True)
    assert refused.returncode == 10 and "--yes" in refused.stderr
    words = [*command(host, clean, "sessions", "--purge", "--yes"), snaps[0].session[:8]]
    assert "Removed 1 of" in subprocess.run(words, capture_output=True, text=True, check=True).stderr
    assert snaps[0].point(1, 1, 1).status == 404
    table = subprocess.run(command(host, clean, "sessions"), capture_output=True, text=True, check=True)
    assert snaps[1].session[:8] in table.stdout and "no image" in table.stdout
    made.close(stop_server=True)
    list_sessions("--purge", "--yes")
    assert list_sessions() == []


def test_a_disk_that_is_full_while_installing(host: sshd.Server, short_folder: Path) -> None:
    """The error has a hint, and nothing is left that the next try would use as a complete environment."""
    from tests.support.disks import small_disk

    with small_disk(short_folder / "disk", "30m") as disk:
        with pytest.raises(DlsError) as caught:
            connected(host, f"{disk}/host")
        assert "--remote-dir" in caught.value.hint or "room" in caught.value.hint
        assert not list(disk.glob("host/env/*/complete.json")) and not list(disk.glob("host/env/.making*"))


def test_a_server_whose_files_were_removed_is_not_started_twice(host: sshd.Server, clean: str) -> None:
    """A server whose state file and socket a cleaner of /tmp removed restores them, and is then found."""
    first, _ = connected(host, clean)
    first.close()
    shutil.rmtree(first.state.run_dir, ignore_errors=True)  # the server may restore a file before the folder goes
    second, _ = connected(host, clean)
    assert second.state.pid == first.state.pid and ItkSnap(second.port).start()
    assert Path(second.state.run_dir).stat().st_mode & 0o777 == 0o700
    second.close()


@pytest.mark.parametrize("code", ["other", None])
def test_a_new_server_waits_for_the_one_that_it_replaces(
    host: sshd.Server, clean: str, code: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one finishes its requests, and the new one starts to listen only then; the files are the new one's.

    This holds for a server of other code, and for one of the same code that does not answer.
    """
    monkeypatch.setattr(status, "ANSWER_SECONDS", 4.0)
    first, _ = connected(host, clean)
    first.close()
    os.kill(first.state.pid, signal.SIGSTOP)  # the stop script lets it continue
    state = Path(first.state.run_dir) / "state.json"
    if code:
        state.write_text(json.dumps({**json.loads(state.read_text()), "code": code}))
    second, reporter = connected(host, clean)
    with second:
        assert is_gone(first.state.pid) and reporter.phases.count("launch") == 1 and reporter.notes == []
        assert json.loads(state.read_text())["pid"] == second.state.pid
        assert ItkSnap(second.port).start()
        state.unlink()
        until(state.exists)  # a server restores its files once a second
        assert json.loads(state.read_text())["pid"] == second.state.pid
        assert Path(second.state.socket).is_socket()
