"""What the keeper does beside the faults of the catalogue: logins that ask, logins that are refused, odd clocks."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dls.demo import sshd
from dls.errors import DlsError, HostKeyError, LoginError
from dls.remote import session
from dls.remote.host.options import ServerOptions
from dls.remote.ssh.login import LoginOptions
from dls.remote.ssh.prompters import CachingPrompter
from dls.remote.ssh.prompts import CannotAsk
from dls.remote.tunnel import supervisor
from dls.remote.tunnel.supervisor import Clock
from tests.support.connecting import RecordingReporter, connected
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, until
from tests.support.prompters import ScriptedPrompter


class WithCode:
    """A login that asks for a password and a one-time code."""

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return False

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", [("Password: ", False), ("Verification code: ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        return list(responses) == ["sesame", "123456"]


CUT_SHORT = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""asyncssh leaves a channel's coroutine behind when its connection is cut."""


@CUT_SHORT
def test_a_code_is_asked_for_again_once(remote_dir: str, short_folder: Path) -> None:
    """In the thread that waits, where Ctrl-C arrives; the password is known already."""
    person, story = ScriptedPrompter({"Password": "sesame", "code": "123456"}), RecordingReporter()
    with sshd.running(short_folder, library=True, login=WithCode) as server:
        login = LoginOptions(ssh_config=server.config, remote_dir=remote_dir)
        made = session.establish("dls-demo", login, ServerOptions(), free_port(), person, story)
        assert person.prompts == ["Password: ", "Verification code: "]
        snap = ItkSnap(made.port)
        first = made.connection
        results: list[str] = []

        def interrupt() -> None:
            first.transport.sock.shutdown(2)  # type: ignore[union-attr]
            results.append(snap.start())
            made._keeper.failed.set()  # lets `wait` return

        worker = threading.Thread(target=interrupt)
        worker.start()
        made.wait()
        worker.join()
        assert results and made.connection is not first
        assert person.prompts[2:] == ["Verification code: "] and person.threads == {"MainThread"}
        made.close(stop_server=True)
    gc.collect()


def test_what_can_be_used_again_is_remembered() -> None:
    """A password is; a code is only until it was judged; what was refused is not offered again."""
    person = ScriptedPrompter({"Password": "sesame", "code": "123456"})
    memory = CachingPrompter(person)
    for _ in range(2):
        memory.secret("Password: ")
        memory.answer("Verification code: ", False)
        memory.login_interrupted()  # the link went before the host had said anything
    assert person.prompts == ["Password: ", "Verification code: "]
    memory.login_accepted()
    memory.secret("Password: ")
    memory.answer("Verification code: ", False)
    assert person.prompts[2:] == ["Verification code: "]
    memory.secret("Password: ")  # asked again in the same login: it was wrong
    assert person.prompts[3:] == ["Password: "]
    memory.login_refused()
    memory.secret("Password: ")
    assert person.prompts[4:] == ["Password: "]


def cut(made: session.Session) -> None:
    made.connection.transport.sock.shutdown(2)  # type: ignore[union-attr]


def test_a_changed_host_key_ends_it(remote_dir: str, short_folder: Path) -> None:
    """Nobody is let in between us and the host because the link was lost; the port says why."""
    with sshd.running(short_folder) as server:
        made, _ = connected(server, remote_dir)
        known = short_folder / "known_hosts"
        other = sshd._write_key(short_folder / "other")
        known.write_text(f"[127.0.0.1]:{server.port} {other}\n")
        cut(made)
        with pytest.raises(HostKeyError):
            made.wait()
        answer = ItkSnap(made.port).get("/status")
        assert answer.status == 503 and "key" in answer.error
        made.close()


@CUT_SHORT
def test_a_login_that_nobody_can_answer_ends_it(remote_dir: str, short_folder: Path) -> None:
    """Without a terminal, a code can't be asked for again: the error says so."""

    gone = CannotAsk("The login needs a secret, and there is no terminal to ask at.")
    person = ScriptedPrompter({"Password": "sesame", "code": ["123456", gone]})
    with sshd.running(short_folder, library=True, login=WithCode) as server:
        login = LoginOptions(ssh_config=server.config, remote_dir=remote_dir)
        made = session.establish("dls-demo", login, ServerOptions(), free_port(), person, RecordingReporter())
        cut(made)
        with pytest.raises(CannotAsk):
            made.wait()
        made.close()
    gc.collect()


def test_refused_logins_are_not_tried_for_ever(remote_dir: str, short_folder: Path, monkeypatch: Any) -> None:
    """More could lock the account: three, with pauses, then the error."""
    monkeypatch.setattr(supervisor, "REFUSED_PAUSE", 0.2)
    with sshd.running(short_folder) as server:
        made, _ = connected(server, remote_dir)
        (short_folder / "authorized_keys").write_text("")
        cut(made)
        with pytest.raises(LoginError):
            made.wait()
        made.close()
        log = short_folder / "sshd.log"
        until(lambda: log.read_text().count("Connection closed by authenticating user") == supervisor.REFUSALS)


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
def test_a_clock_that_jumps_costs_nothing(host: sshd.Server, remote_dir: str, jump: float) -> None:
    """Neither the link nor the session; a jump forward looks like a sleep, and is looked into."""
    offset = 0.0
    made, _ = connected(host, remote_dir)
    made._keeper._clock = Clock(wall=lambda: time.time() + offset)
    connection, pid = made.connection, made.state.pid
    snap = ItkSnap(made.port)
    snap.start()
    time.sleep(1.5)
    offset = jump
    time.sleep(3)
    assert snap.get(f"/reset_interactions/{snap.session}").status == 200
    assert made.is_up and made.connection is connection and made.state.pid == pid
    made.close()


def test_a_sleep_is_noticed_at_once(host: sshd.Server, remote_dir: str) -> None:
    """The link is looked at with little patience, not with that of a link that was fine a moment ago."""
    offset = 0.0
    made, story = connected(host, remote_dir)
    made._keeper._clock = Clock(wall=lambda: time.time() + offset)
    for pid in children_of_sshd(made):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5)
    offset = 3600
    started = time.monotonic()
    until(lambda: not made.is_up or story.links, 20)
    assert time.monotonic() - started < 60
    until(lambda: made.is_up)
    assert ItkSnap(made.port).start()
    made.close()


def children_of_sshd(made: session.Session) -> list[int]:
    """The processes that serve our connection: those that know its port."""
    local = made.connection.transport.sock.getsockname()[1]  # type: ignore[union-attr]
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].split(":")[1], 16) == local:
            inode = fields[9]
            for link in Path("/proc").glob("[0-9]*/fd/*"):
                try:
                    if str(link.readlink()) == f"socket:[{inode}]":
                        found.append(int(link.parts[2]))
                except OSError:
                    continue
    assert found
    return found


def test_the_port_closes_with_the_session(host: sshd.Server, remote_dir: str) -> None:
    """And who waits gets an answer."""
    made, _ = connected(host, remote_dir)
    made.close()
    with pytest.raises(Exception):  # noqa: B017 - curl's own
        ItkSnap(made.port).get("/status")
    assert isinstance(made._keeper.error, DlsError | None)
