"""What a child `ssh` asks and says, in OpenSSH's words from several releases."""

from __future__ import annotations

import pytest

from dls.errors import ConnectError, DlsError, HostError, HostKeyError, LinkError, LoginError, TargetError
from dls.remote.carriers.ssh_errors import read_errors
from dls.remote.carriers.ssh_questions import Asking, read_host_key, read_question
from dls.remote.ssh.prompts import QuestionKind
from dls.remote.ssh.target import Target

TARGET = Target("gpu", "gpu1.example.org", 22, "ann")


@pytest.mark.parametrize("words", ["key fingerprint is", "key fingerprint is:"])
def test_an_unknown_host_key(words: str) -> None:
    """Name, address, kind and fingerprint are read; releases write the sentence with and without a colon."""
    key = read_host_key(
        f"The authenticity of host 'gpu1 (10.0.0.1)' can't be established.\nED25519 {words} SHA256:abc/+.\n"
        "This key is not known by any other names.\n"
        "Are you sure you want to continue connecting (yes/no/[fingerprint])? "
    )
    assert key is not None
    assert (key.known_hosts_name, key.address, key.key_type) == ("gpu1", "10.0.0.1", "ED25519")
    assert key.fingerprint == "SHA256:abc/+"
    assert read_host_key("Enter passphrase for key '/k': ") is None


def ask(prompt: str, *, is_named: bool = True, has_jump_hosts: bool = False) -> Asking:
    return read_question(TARGET, prompt, is_named=is_named, has_jump_hosts=has_jump_hosts)


@pytest.mark.parametrize(
    ("prompt", "kind", "subject"),
    [
        ("Enter passphrase for key '/home/a b/k': ", QuestionKind.PASSPHRASE, "/home/a b/k"),
        ("Enter passphrase for /home/ann/k: ", QuestionKind.PASSPHRASE, "/home/ann/k"),
        ("Enter PIN for 'lab': ", QuestionKind.PASSPHRASE, "'lab'"),
        ("(ann@gpu1.example.org) Verification code: ", QuestionKind.HOST, "ann@gpu1.example.org:22"),
        ("(me@bastion) Verification code: ", QuestionKind.HOST, "me@bastion"),
        ("ann@gpu's password: ", QuestionKind.PASSWORD, "ann@gpu1.example.org:22"),
        ("me@bastion's password: ", QuestionKind.PASSWORD, "me@bastion"),
    ],
)
def test_questions(prompt: str, kind: QuestionKind, subject: str) -> None:
    """Each question becomes one of ours, about the key, the token or the account that gets the answer."""
    question = ask(prompt).question
    assert (question.kind, question.subject, question.echo) == (kind, subject, False)


@pytest.mark.parametrize(
    ("prompt", "takes"),
    [
        ("ann@gpu1.example.org's password: ", True),
        ("ann@gpu's password: ", True),
        ("ann@bastion's password: ", False),
        ("bob@gpu's password: ", False),
        ("(ann@gpu1.example.org) Password: ", True),
        ("(ann@gpu1.example.org) One-time password (OATH) for 'ann': ", False),
        ("(ann@gpu1.example.org) New password: ", False),
        ("(ann@bastion) Password: ", False),
        ("(me@bastion) ann@gpu1.example.org's password: ", False),
        ("(me@bastion) (ann@gpu1.example.org) Password: ", False),
        ("Hello\nann@gpu1.example.org's password: ", False),
    ],
)
def test_whose_password(prompt: str, takes: bool) -> None:
    """The password that was given for the target goes to no jump host, in whatever words that asks."""
    assert ask(prompt, has_jump_hosts=True).takes_password == takes


def test_a_jump_host_asks_in_its_own_name() -> None:
    """Each line of its question begins with its own account, and no key's passphrase is asked for in our words."""
    question = ask("(me@bastion) Hello\nEnter passphrase for key '/home/ann/k': ").question
    assert question.kind is QuestionKind.HOST
    assert all(line.startswith("me@bastion asks: ") for line in question.prompt.splitlines())


def test_an_old_ssh_does_not_say_who_asks() -> None:
    """Nothing is answered from memory: equal questions are not equal to each other; no password for a jump host."""
    prompt = "Enter passphrase for key '/home/ann/k': "
    first, second = (ask(prompt, is_named=False).question for _ in range(2))
    assert first != second and first.kind is QuestionKind.HOST
    assert ask("Password: ", is_named=False).takes_password
    assert not ask("Password: ", is_named=False, has_jump_hosts=True).takes_password


CLOSED = "Connection closed by UNKNOWN port 65535"


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("ssh: Could not resolve hostname gpu1: Name or service not known", ConnectError, "'gpu1'"),
        ("ssh: connect to host gpu1 port 22: Connection refused", ConnectError, "gpu1 can't be reached on port 22"),
        (f"ssh: connect to host bastion port 22: Connection timed out\n{CLOSED}", ConnectError, "bastion"),
        ("Connection timed out during banner exchange", ConnectError, "does not greet"),
        ("kex_exchange_identification: Connection closed by remote host", ConnectError, "before it greets"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", HostKeyError, "has changed"),
        ("No ED25519 host key is known for gpu1 and you have requested strict checking.", HostKeyError, "gpu1"),
        ("Host key verification failed.", HostKeyError, "not accepted"),
        ("ann@gpu1: Permission denied (publickey,password).", LoginError, "publickey,password"),
        ("Received disconnect from 1.2.3.4 port 22:2: Too many authentication failures", LoginError, "too many"),
        ("Password change required but no TTY available.", LoginError, "expired"),
        ("Access denied by the book\nConnection closed by 1.2.3.4 port 22", LoginError, "closed the connection"),
        ("/c: line 3: Bad configuration option: foo", TargetError, "foo"),
        ("Timeout, server gpu1 not responding.", LinkError, "says nothing"),
        ("Unable to negotiate with 1.2.3.4 port 22: no matching cipher found. Their offer: x", ConnectError, "cipher"),
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED!\nkex_exchange_identification: Connection closed by remote host\n"
            + CLOSED,
            HostKeyError,
            "has changed",
        ),
        (
            f"me@bastion: Permission denied (publickey).\nkex_exchange_identification: Connection closed\n{CLOSED}",
            LoginError,
            "accepted no login",
        ),
        ("channel 0: open failed: connect failed: open failed", HostError, "no commands"),
        ("something new", ConnectError, "something new"),
    ],
)
def test_what_standard_error_means(text: str, kind: type[DlsError], words: str) -> None:
    """Each line has its sentence; the lines themselves are the detail, and braces in them are no formats."""
    for line in (text, text.replace("\n", "\r\n"), f"Warning: Permanently added 'x'.\n{text}\n{{0}} {{}}"):
        error = read_errors("gpu", line, 255)
        assert type(error) is kind and words in error.message, error.message
        assert error.hint and error.detail


def test_a_command_that_is_not_ours() -> None:
    """What a forced command or a login shell prints is shown."""
    for status, said in ((1, "This account is not available."), (0, ""), (42, "")):
        error = read_errors("gpu", "", status, said)
        assert type(error) is HostError and "runs another command" in error.message and said in error.detail
    assert "runs no sh" in read_errors("gpu", "", 127).message
