"""Why a login fails: each reason has a sentence of its own, and what was offered stands in the detail."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dls.demo import sshd
from dls.errors import ConnectError, HostError, LinkError, LoginError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.exceptions import NeedsOpenSsh, NoCommonAlgorithm, connection_error, translate_errors
from dls.remote.ssh.kerberos import has_ticket
from dls.remote.ssh.prompts import NoPrompter, Question
from dls.remote.ssh.refusals import Attempt, refusal_table
from dls.remote.ssh.target import METHODS, Target
from dls.remote.ssh.transport import HostTransport
from tests.support.connect_process import children_of, kill_all
from tests.support.logins import PASSWORD, target_of
from tests.support.one_time_codes import OnlyQuestions
from tests.support.processes import until
from tests.support.prompters import ScriptedPrompter

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, so it needs root")


class Waiting(ScriptedPrompter):
    """Answers when something has happened."""

    def __init__(self, event: Callable[[], object]) -> None:
        super().__init__({"": "too late"})
        self._event = event

    def answer(self, question: Question) -> str:
        until(self._event)
        return super().answer(question)


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@pytest.fixture
def folder(short_folder: Path) -> Path:
    """A folder that the test's account can look into."""
    short_folder.chmod(0o755)
    return short_folder


def test_a_banner_is_shown(folder: Path) -> None:
    """The host's banner is shown line by line with its name, and stands in the error's detail too."""
    (folder / "banner").write_text("Authorised users only.\n\nDown on Friday.\n")
    with sshd.running(folder, options=f"Banner {folder}/banner") as server:
        target, person = target_of(server), ScriptedPrompter()
        Connection.open(target, person).close()
        words = f"{target} says: Authorised users only.\n{target} says: Down on Friday."
        assert person.told == [words]
        with pytest.raises(LoginError) as caught:
            Connection.open(replace(target, identities=()), NoPrompter())
        assert caught.value.detail == f"{words}\nOffered:\n  nothing\nThe host accepts: publickey"


def test_too_many_keys(folder: Path, tmp_path: Path) -> None:
    """A host that hangs up after too many keys is told from one that refuses the account."""
    with sshd.running(folder, options="MaxAuthTries 2") as server:
        keys = tuple(make_key(tmp_path / name) for name in "abcd")
        with pytest.raises(LoginError, match="too many keys") as caught:
            Connection.open(replace(target_of(server), identities=keys), NoPrompter())
        assert "IdentitiesOnly" in caught.value.hint and "the key a  not accepted" in caught.value.detail


@needs_root
def test_an_account_that_pam_denies(account: tuple[str, Path], folder: Path) -> None:
    """The key is right and the account has expired: the sentence says so, with PAM's own reason."""
    subprocess.run(["chage", "-E", "0", account[0]], check=True)
    with sshd.running(folder, options="UsePAM yes") as server:
        target, person = replace(target_of(server), user=account[0]), ScriptedPrompter()
        with pytest.raises(LoginError, match=f"{account[0]} may not log in there now") as caught:
            Connection.open(target, person)
        assert "account has expired" in person.told[0] and "account has expired" in caught.value.detail
        assert "too many" not in caught.value.message


@needs_root
def test_a_password_that_must_be_changed(account: tuple[str, Path], folder: Path) -> None:
    """The host takes the key or the password, and runs only `passwd`: the password has expired."""
    subprocess.run(["chage", "-d", "0", account[0]], check=True)
    with sshd.running(folder, options="UsePAM yes\nPasswordAuthentication yes") as server:
        target = replace(target_of(server), user=account[0])
        for given in (target, replace(target, identities=())):
            connection = Connection.open(given, NoPrompter(), password=PASSWORD)
            with pytest.raises(LoginError, match="has expired") as caught:
                connection.run("true")
            assert f"ssh -p {server.port} {account[0]}@127.0.0.1" in caught.value.hint
            connection.close()


class ExpiredPassword:
    """A login whose password has to be changed, by the method `password` (RFC 4252, section 8)."""

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return False

    def password_auth_supported(self) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return False

    def validate_password(self, username: str, password: str) -> bool:
        import asyncssh

        raise asyncssh.PasswordChangeRequired("Choose a new one")


def test_a_host_that_demands_a_new_password(folder: Path) -> None:
    """SSH_MSG_USERAUTH_PASSWD_CHANGEREQ is an expired password, too."""
    expired = pytest.raises(LoginError, match="has expired")
    with sshd.running(folder, library=True, login=ExpiredPassword) as server, expired:
        Connection.open(target_of(server), NoPrompter(), password=PASSWORD)
    gc.collect()


@needs_root
def test_the_time_for_a_login_is_over(account: tuple[str, Path], folder: Path) -> None:
    """A host that hung up while the person was asked is told from one that refuses."""
    options = f"PasswordAuthentication yes\nLoginGraceTime 5\nPidFile {folder}/pid"
    with sshd.running(folder, options=options) as server:
        person = Waiting(lambda: not children_of(int((folder / "pid").read_text())))
        with pytest.raises(LoginError, match="the time that it gives for a login is over") as caught:
            Connection.open(replace(target_of(server), user=account[0], identities=()), person)
        assert "Offered:\n  nothing" in caught.value.detail


def negotiate(target: Target, seconds: float = 30) -> None:
    """Exchange keys with a server that never comes so far, and raise our error; its first line may take so long."""
    with socket.create_connection((target.host, target.port)) as sock:
        transport = HostTransport(sock)
        transport.banner_timeout = seconds
        with translate_errors(partial(connection_error, target)):
            transport.start_client()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listener on a free loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_greeting_that_does_not_come(listener: socket.socket) -> None:
    """A port that is open and silent is no lost connection."""
    target = Target("gpu", "127.0.0.1", listener.getsockname()[1], "ann")
    with pytest.raises(ConnectError, match="no SSH greeting came in time"):
        negotiate(target, 0.3)


@pytest.mark.parametrize("text", [b"", b"Not allowed at this time\r\n", b"Exceeded MaxStartups\r\n"])
def test_a_connection_that_is_closed_before_the_greeting(listener: socket.socket, text: bytes) -> None:
    """A host that takes no logins now closes the connection, and may say why."""

    def close() -> None:
        peer, _ = listener.accept()
        peer.recv(100)
        peer.sendall(text)
        peer.close()

    thread = threading.Thread(target=close)
    thread.start()
    target = Target("gpu", "127.0.0.1", listener.getsockname()[1], "ann")
    said = text.decode().strip()
    with pytest.raises(ConnectError, match=f"before its SSH greeting.*{said}"):
        negotiate(target)
    thread.join()


@pytest.mark.parametrize(
    ("greeting", "message"),
    [(b"SSH-2.0-odd\r\n", "right after its greeting"), (b"SSH-1.5-old\r\n", "older than 2.0")],
)
def test_a_greeting_and_nothing_more(listener: socket.socket, greeting: bytes, message: str) -> None:
    """A server that closes the connection after its greeting, and one of SSH 1, are no lost connection."""

    def greet() -> None:
        peer, _ = listener.accept()
        peer.recv(100)
        peer.sendall(greeting)
        peer.shutdown(socket.SHUT_WR)
        peer.recv(100_000)
        peer.close()

    thread = threading.Thread(target=greet)
    thread.start()
    with pytest.raises(ConnectError, match=message):
        negotiate(Target("gpu", "127.0.0.1", listener.getsockname()[1], "ann"))
    thread.join()


@pytest.mark.parametrize(
    ("option", "what"),
    [
        (
            "Ciphers chacha20-poly1305@openssh.com",
            "no cipher in common: the host has only chacha20-poly1305@openssh.com",
        ),
        ("KexAlgorithms sntrup761x25519-sha512@openssh.com", "no key exchange in common: the host has only sntrup761"),
        ("MACs umac-64@openssh.com\nCiphers aes128-ctr", "no MAC in common: the host has only umac-64@openssh.com"),
    ],
)
def test_algorithms_that_paramiko_lacks(folder: Path, option: str, what: str) -> None:
    """The error says what the host has; nobody is told that its server is old."""
    with sshd.running(folder, options=option) as server, pytest.raises(NoCommonAlgorithm, match=what):
        Connection.open(target_of(server), NoPrompter())


def test_a_host_without_sessions(folder: Path) -> None:
    """`MaxSessions 0` is a host that runs no commands."""
    with sshd.running(folder, options="MaxSessions 0") as server:
        connection = Connection.open(target_of(server), NoPrompter())
        with pytest.raises(HostError, match="runs no commands"):
            connection.run("true")
        connection.close()


def test_a_connection_that_ends_right_after_the_login(folder: Path) -> None:
    """A host whose session dies at once is told from a link that was lost in between."""
    with sshd.running(folder, options=f"PidFile {folder}/pid") as server:
        connection = Connection.open(target_of(server), NoPrompter())
        kill_all(children_of(int((folder / "pid").read_text())))
        with pytest.raises(LinkError, match="accepted the login and closed the connection at once"):
            connection.run("true")
        connection = Connection.open(target_of(server), NoPrompter())
        connection.run("true")
        kill_all(children_of(int((folder / "pid").read_text())))
        with pytest.raises(LinkError, match="was lost"):
            connection.run("true")


def klist(folder: Path, script: str) -> str:
    """Write a `klist` that answers so, and return a PATH in which it comes first."""
    program = folder / "klist"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(("script", "expected"), [("exit 0", True), ("exit 1", False), ("exec sleep 30", False)])
def test_a_kerberos_ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, expected: bool) -> None:
    """`klist -s` says whether there is a ticket; one that hangs is not waited for."""
    monkeypatch.setenv("PATH", klist(tmp_path, script))
    assert has_ticket() is expected


@needs_root
def test_kerberos_needs_openssh(
    account: tuple[str, Path], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a ticket, and a host that takes it, ssh logs in before anybody is asked; keys come first, as ever."""
    options = "GSSAPIAuthentication yes\nPasswordAuthentication yes"
    with sshd.running(folder, options=options) as server:
        target = replace(target_of(server), user=account[0], methods=METHODS)
        without = replace(target, identities=())
        monkeypatch.setenv("PATH", klist(tmp_path, "exit 1"))
        with pytest.raises(LoginError, match="accepted no login") as refused:
            Connection.open(replace(without, methods=("gssapi-with-mic", "publickey")), ScriptedPrompter())
        assert "kinit" in refused.value.hint
        person = ScriptedPrompter({"password": PASSWORD})
        Connection.open(without, person).close()
        assert len(person.asked) == 1
        monkeypatch.setenv("PATH", klist(tmp_path, "exit 0"))
        Connection.open(target, ScriptedPrompter()).close()
        with pytest.raises(NeedsOpenSsh) as caught:
            Connection.open(without, ScriptedPrompter())
        assert caught.value.reason == "Kerberos (GSSAPI)"
        methods = ("publickey", "password")
        Connection.open(replace(without, methods=methods), ScriptedPrompter({"password": PASSWORD})).close()


def test_host_based_authentication_needs_openssh(folder: Path) -> None:
    """Where nothing else is left and host and configuration take it, ssh can go on."""
    with sshd.running(folder, options="HostbasedAuthentication yes") as server:
        target = replace(target_of(server), identities=(), methods=METHODS)
        with pytest.raises(NeedsOpenSsh) as caught:
            Connection.open(target, NoPrompter())
        assert caught.value.reason == "host-based authentication"
        with pytest.raises(LoginError) as refused:
            Connection.open(replace(target, methods=("publickey",)), NoPrompter())
        assert not isinstance(refused.value, NeedsOpenSsh)


def test_the_table() -> None:
    """What was offered stands in columns, the same thing once; then what the host accepts."""
    attempts = [Attempt("the key k", "not accepted"), *[Attempt("a password", "not accepted")] * 3]
    assert refusal_table(attempts, ["publickey", "password"], ["gpu says: No."]).splitlines() == [
        "gpu says: No.",
        "Offered:",
        "  the key k   not accepted",
        "  a password  not accepted, 3 times",
        "The host accepts: publickey, password",
    ]


class Endless(OnlyQuestions):
    """A host that asks nothing, for ever or once."""

    again: Any = False

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "again", "", []

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        return self.again


def test_a_method_that_asks_nothing_is_tried_once(folder: Path) -> None:
    """A host that refuses without a question refuses again."""
    with sshd.running(folder, library=True, login=Endless) as server:
        person = ScriptedPrompter()
        with pytest.raises(LoginError):
            Connection.open(target_of(server), person)
        assert len([text for text in person.told if text.endswith("says: again")]) == 1
    gc.collect()


def test_a_host_that_asks_without_end(folder: Path) -> None:
    """Rounds without a question could go on for ever: the login ends after a hundred."""

    class Forever(Endless):
        again: Any = ("", "again", "", [])

    with sshd.running(folder, library=True, login=Forever) as server, pytest.raises(LoginError, match="without end"):
        Connection.open(target_of(server), NoPrompter())
    gc.collect()
