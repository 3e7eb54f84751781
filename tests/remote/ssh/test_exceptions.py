"""Exceptions of paramiko and of sockets become errors of ours, in one place."""

from __future__ import annotations

import re
import socket
from functools import partial
from pathlib import Path
from typing import Any

import paramiko
import pytest
from paramiko import ssh_exception

import dls
from dls.errors import ConnectError, DlsError, ForwardError, HostError, HostKeyError, LinkError, LoginError, TargetError
from dls.remote.ssh.exceptions import (
    CONVERTERS,
    ChannelError,
    NoCommonAlgorithm,
    Prohibited,
    channel_error,
    connection_error,
    sftp_error,
    translate_errors,
)
from dls.remote.ssh.target import Target

TARGET = Target("gpu", "gpu1.example.org", 22, "ann")
KEY = paramiko.RSAKey.generate(1024)

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "BadAuthenticationType": ("not accepted", ["publickey"]),
    "PartialAuthentication": (["password"],),
    "BadHostKeyException": ("gpu", KEY, KEY),
    "ChannelException": (2, "connect failed"),
    "ProxyCommandFailure": ("nc", "not found"),
    "NoValidConnectionsError": ({("127.0.0.1", 22): OSError("refused")},),
}
"""Constructor arguments of the exception classes that take others than one text."""

EXCEPTIONS = [
    kind for kind in vars(ssh_exception).values() if isinstance(kind, type) and issubclass(kind, BaseException)
]


def raise_and_translate(error: Exception) -> DlsError:
    with pytest.raises(DlsError) as caught, translate_errors(partial(connection_error, TARGET)):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


def test_no_exception_of_paramiko_is_unmapped() -> None:
    """Each class in paramiko.ssh_exception has a converter of its own; a class that a new version adds fails here."""
    assert len(EXCEPTIONS) >= 14
    assert {kind.__name__ for kind in EXCEPTIONS if kind not in CONVERTERS} == set()


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_each_exception_of_paramiko_becomes_one_sentence(kind: type[Exception]) -> None:
    """An instance of each class becomes a DlsError whose message is a sentence."""
    error = raise_and_translate(kind(*ARGUMENTS.get(kind.__name__, ("it failed",))))
    assert error.message.endswith(".") and error.hint


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (socket.gaierror(-2, "Name or service not known"), ConnectError),
        (TimeoutError(), ConnectError),
        (ConnectionResetError(), ConnectError),
        (EOFError(), LinkError),
        (paramiko.SFTPError("Garbage packet received"), LinkError),
        (paramiko.SSHException("Error reading SSH protocol banner"), ConnectError),
        (paramiko.SSHException("No existing session"), LinkError),
        (paramiko.AuthenticationException(), LoginError),
        (ssh_exception.BadHostKeyException("gpu", KEY, KEY), HostKeyError),
        (ssh_exception.IncompatiblePeer("no acceptable ciphers"), NoCommonAlgorithm),
        (paramiko.ChannelException(2, "Connect failed"), ForwardError),
        (paramiko.ChannelException(1, "Administratively prohibited"), Prohibited),
        (paramiko.ConfigParseError("line 3"), TargetError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_class_of_the_translated_error(error: Exception, expected: type[DlsError]) -> None:
    """The class of the error, and with it the exit code, follows from the exception."""
    assert type(raise_and_translate(error)) is expected


def test_other_exceptions_pass_unchanged() -> None:
    """An error of ours, Ctrl-C and a mistake in our code are not translated."""
    for error in (LinkError("The link is lost."), KeyboardInterrupt(), ZeroDivisionError()):
        with pytest.raises(type(error)) as caught, translate_errors(partial(connection_error, TARGET)):
            raise error
        assert caught.value is error


def test_channel_errors_are_of_one_class() -> None:
    """At a channel, every exception becomes ChannelError."""
    for error in (OSError("Socket is closed"), TimeoutError(), EOFError(), paramiko.SSHException("x")):
        with pytest.raises(ChannelError, match=type(error).__name__), translate_errors(channel_error):
            raise error


def test_sftp_errors_say_what_failed() -> None:
    """A full disk, a host without SFTP, a login shell that disturbs it, and a lost connection are different errors."""
    active, lost = (
        partial(sftp_error, TARGET, "/data/x", lambda: True),
        partial(sftp_error, TARGET, "/x", lambda: False),
    )
    full = active(OSError(28, "No space left on device"))
    assert type(full) is HostError and "No space left" in full.message and "/data/x" in full.message
    for error in (paramiko.SSHException("Channel closed."), paramiko.SFTPError("Garbage packet received")):
        assert type(active(error)) is HostError and "SFTP" in active(error).message
        assert type(lost(error)) is LinkError
    assert type(active(EOFError())) is LinkError, "the socket may know of the end before the transport does"


def test_paramiko_is_imported_in_one_folder() -> None:
    """No module outside dls/remote/ssh imports paramiko, except the listener, which needs the type of a transport."""
    package = Path(dls.__file__).parent
    importing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"^\s*(import|from) paramiko\b", path.read_text(), re.MULTILINE)
    }
    outside = {name for name in importing if not name.startswith("remote/ssh/")}
    assert outside <= {"remote/tunnel/listener.py"}
    assert importing > outside
