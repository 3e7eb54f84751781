"""Authentication: keys, passwords, and questions in rounds."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dls.demo import sshd
from dls.errors import LoginError
from dls.remote.ssh.auth import choose_method
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.target import METHODS, Target
from tests.support.logins import PASSWORD, target_of
from tests.support.processes import until
from tests.support.prompters import ScriptedPrompter

CODE = "492039"

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, so it needs root")


class TwoRounds:
    """A login that asks for a password in one round and for a one-time code in the next."""

    def begin_auth(self, username: str) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "Two steps", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        if list(responses) == [PASSWORD]:
            return "", "", "", [("Verification code: ", True)]
        return list(responses) == [CODE]


@pytest.fixture
def two_rounds(short_folder: Path) -> Iterator[Target]:
    """A server that asks TwoRounds' questions, as a target."""
    with sshd.running(short_folder, library=True, login=TwoRounds) as server:
        yield target_of(server)
    gc.collect()  # a connection that the server left open shows here, not in another test


def test_a_password_and_a_code(two_rounds: Target) -> None:
    """Both rounds are answered in the thread that logs in; the option answers the question for the password."""
    person = ScriptedPrompter({"Password": PASSWORD, "code": CODE})
    connection = Connection.open(two_rounds, person)
    assert person.host_questions == ["Password: ", "Verification code: "]
    assert [is_shown for _, is_shown in person.asked] == [False, True]
    assert person.threads == {threading.current_thread().name}
    assert connection.credential == "the host's questions"
    connection.close()
    person = ScriptedPrompter({"code": CODE})
    Connection.open(two_rounds, person, password=PASSWORD).close()
    assert person.host_questions == ["Verification code: "]


@pytest.mark.timeout(60)
def test_ctrl_c_at_a_question_ends_the_login(two_rounds: Target) -> None:
    """The question is asked in our thread, not in paramiko's; the threads of the login end."""
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        Connection.open(two_rounds, ScriptedPrompter({"Password": PASSWORD, "code": KeyboardInterrupt()}))
    until(lambda: set(threading.enumerate()) <= before)


def test_three_wrong_codes(two_rounds: Target) -> None:
    """A login with wrong codes ends after three attempts."""
    person = ScriptedPrompter({"Password": PASSWORD, "code": "000000"})
    with pytest.raises(LoginError, match="accepted no login"):
        Connection.open(two_rounds, person)
    assert len(person.asked) == 6


def test_questions_without_a_terminal(two_rounds: Target) -> None:
    """Where nobody can be asked, the error says so."""
    with pytest.raises(LoginError, match="no terminal"):
        Connection.open(two_rounds, NoPrompter())


def test_methods_without_questions_come_first() -> None:
    """Keys are tried before passwords, each method once, and unknown methods never."""
    assert choose_method(METHODS, ["password", "publickey"], set()) == "publickey"
    assert choose_method(METHODS, ["password", "publickey"], {"publickey"}) == "password"
    assert choose_method(METHODS, ["gssapi-with-mic"], set()) is None
    assert choose_method(["password", "publickey"], ["publickey", "password"], set()) == "password"


def test_a_key_that_is_not_accepted(target: Target, tmp_path: Path) -> None:
    """The message names the methods that the host accepts and that were tried."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    with pytest.raises(LoginError, match=r"it takes publickey.*tried: publickey"):
        Connection.open(replace(target, identities=(tmp_path / "k",)), NoPrompter())


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_with_a_passphrase(host: sshd.Server, target: Target, tmp_path: Path, kind: str) -> None:
    """The passphrase is asked for when no other key was accepted; two wrong ones are allowed."""
    key = tmp_path / "k"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "open sesame", "-f", str(key)], check=True)
    authorized = host.config.parent / "authorized_keys"
    before = authorized.read_text()
    authorized.write_text(before + (tmp_path / "k.pub").read_text())
    target = replace(target, identities=(key,))
    person = ScriptedPrompter({"Passphrase": ["wrong", "open sesame"]})
    try:
        connection = Connection.open(target, person)
        assert connection.credential == "the key k" and len(person.asked) == 2
        connection.close()
        with pytest.raises(LoginError, match="no terminal"):
            Connection.open(target, NoPrompter())
    finally:
        authorized.write_text(before)


@needs_root
def test_a_password(account: tuple[str, Path], short_folder: Path) -> None:
    """A password comes from the option or is typed, with two wrong ones before; no error contains it."""
    short_folder.chmod(0o755)
    with sshd.running(short_folder, options="PasswordAuthentication yes\nPubkeyAuthentication no") as server:
        target = replace(target_of(server), user=account[0])
        connection = Connection.open(target, NoPrompter(), password=PASSWORD)
        assert connection.credential == "a password" and connection.run("whoami").stdout == account[0]
        connection.close()
        person = ScriptedPrompter({"password": ["hunter2", "hunter3", PASSWORD]})
        Connection.open(target, person).close()
        assert len(person.asked) == 3
        with pytest.raises(LoginError) as caught:
            Connection.open(target, NoPrompter(), password="hunter2")
        assert "--password-file" in caught.value.hint and "hunter2" not in str(caught.value.__dict__)


@needs_root
def test_a_locked_key_does_not_prevent_a_password(
    account: tuple[str, Path], short_folder: Path, tmp_path: Path
) -> None:
    """Neither a key whose passphrase can't be asked for nor a key of an unknown format ends the login."""
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", str(locked)], check=True)
    odd = tmp_path / "odd"
    odd.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    short_folder.chmod(0o755)
    with sshd.running(short_folder, options="PasswordAuthentication yes") as server:
        target = replace(target_of(server), user=account[0], identities=(odd, locked))
        connection = Connection.open(target, NoPrompter(), password=PASSWORD)
        assert connection.credential == "a password"
        connection.close()
        with pytest.raises(LoginError, match="no terminal"):
            Connection.open(target, NoPrompter())
