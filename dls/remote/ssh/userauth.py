"""The client's half of the SSH Authentication Protocol (RFC 4252): one request at a time, and the host's answer.

paramiko has its own, which asks in the transport's thread, where Ctrl-C does not arrive, signs with a key that the host
may not want, and throws away what the host says.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import paramiko
from paramiko.auth_handler import AuthHandler
from paramiko.common import (
    MSG_SERVICE_ACCEPT,
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
    MSG_USERAUTH_SUCCESS,
    cMSG_SERVICE_REQUEST,
    cMSG_USERAUTH_REQUEST,
)

from dls.remote.ssh.transport import HostTransport
from dls.remote.ssh.wire import string

SERVICE = "ssh-connection"
METHOD_REPLY = 60
"""SSH_MSG_USERAUTH_PK_OK, _PASSWD_CHANGEREQ or _INFO_REQUEST: what it means depends on the method."""
INFO_RESPONSE = 61
ANSWER_SECONDS = 300.0
"""Longest time for one answer of the host: it may wait for somebody who looks for their phone."""
POLL_SECONDS = 0.2
"""Seconds of one wait: on Windows, Ctrl-C can't interrupt an unbounded one."""
MAX_WAITING = 100
"""Most messages that may wait here while a person is asked; a host that sends more than that is up to no good."""


class Reply:
    """What the host answers to a request."""


@dataclass(frozen=True)
class Success(Reply):
    """The login is complete."""


@dataclass(frozen=True)
class Failure(Reply):
    """The request is refused, or accepted but not enough (`partial`)."""

    methods: tuple[str, ...]
    """The methods that can go on."""
    partial: bool = False


@dataclass(frozen=True)
class PublicKeyOk(Reply):
    """The host would accept this key."""


@dataclass(frozen=True)
class PasswordChangeRequest(Reply):
    """The password is right, and has to be changed."""


@dataclass(frozen=True)
class InfoRequest(Reply):
    """A round of questions (RFC 4256), which may be none."""

    name: str
    instruction: str
    prompts: tuple[tuple[str, bool], ...]
    """Each question, and whether to show what is typed."""


class ConnectionClosed(Exception):
    """The host ended the connection during the login, or did not answer."""

    def __init__(self, reason: str, *, was_idle: bool, waited: float, since_start: float) -> None:
        super().__init__(reason)
        self.reason = reason
        """What the host gave as the reason; mostly nothing."""
        self.was_idle = was_idle
        """Whether the host waited for us, and not we for its answer."""
        self.waited = waited
        """Seconds for which we had waited for its answer."""
        self.since_start = since_start
        """Seconds since the login began."""


class UserAuth(AuthHandler):
    """Sends the requests of one login, in the thread that calls; `on_banner` is given what the host says meanwhile."""

    def __init__(self, transport: HostTransport, user: str, on_banner: Callable[[str], None]) -> None:
        super().__init__(transport)  # which keeps a weak reference
        self._host = transport
        self._user = user
        self._on_banner = on_banner
        self._inbox: queue.Queue[tuple[int, paramiko.Message] | None] = queue.Queue(MAX_WAITING)
        self._started = time.monotonic()
        self.username = user
        transport.auth_handler = self

    @property
    def _client_handler_table(self) -> dict[int, Callable[[paramiko.Message], None]]:
        kinds = (MSG_SERVICE_ACCEPT, MSG_USERAUTH_SUCCESS, MSG_USERAUTH_FAILURE, MSG_USERAUTH_BANNER, METHOD_REPLY)
        return {kind: lambda message, kind=kind: self._receive(kind, message) for kind in kinds}  # type: ignore[misc]

    def _receive(self, kind: int, message: paramiko.Message) -> None:
        """Take a message in the transport's thread."""
        if self.authenticated:
            return
        if kind == MSG_USERAUTH_SUCCESS:
            self.authenticated = True
            self._host._auth_trigger()  # type: ignore[attr-defined]
        try:
            self._inbox.put_nowait((kind, message))
        except queue.Full:
            raise paramiko.SSHException("too many messages during the login") from None

    def abort(self) -> None:
        """Wake the thread that waits for an answer; the transport calls this when it ends."""
        with contextlib.suppress(queue.Full):
            self._inbox.put_nowait(None)

    def start(self) -> None:
        """Request the service, once for all methods."""
        self._send(cMSG_SERVICE_REQUEST, "ssh-userauth")
        self._wait()

    def request(self, method: str, *fields: bytes | str | bool) -> Reply:
        """Send a request and return the host's reply; raises ConnectionClosed."""
        if not self._host.is_active():
            raise self._closed(was_idle=True)
        self._send(cMSG_USERAUTH_REQUEST, self._user, SERVICE, method, *fields)
        return self._reply(method)

    def offer(self, algorithm: str, key: bytes) -> Reply:
        """Ask whether the host would accept this key."""
        return self.request("publickey", False, algorithm, key)

    def sign(self, algorithm: str, key: bytes, make_signature: Callable[[bytes], bytes]) -> Reply:
        """Log in with a key; `make_signature` signs what it is given."""
        session = self._host.session_id
        assert session is not None
        signed = (
            string(session) + cMSG_USERAUTH_REQUEST + string(self._user.encode()) + string(SERVICE.encode())
            + string(b"publickey") + b"\1" + string(algorithm.encode()) + string(key)
        )  # fmt: skip
        return self.request("publickey", True, algorithm, key, make_signature(signed))

    def respond(self, answers: Sequence[str]) -> Reply:
        """Answer a round of questions, and return the host's reply."""
        if not self._host.is_active():
            raise self._closed(was_idle=True)
        self._send(bytes([INFO_RESPONSE]), len(answers), *answers)
        return self._reply("keyboard-interactive")

    def _send(self, kind: bytes, *fields: bytes | str | bool | int) -> None:
        message = paramiko.Message()
        message.add_byte(kind)
        for field in fields:
            if isinstance(field, bool):
                message.add_boolean(field)
            elif isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        with contextlib.suppress(OSError, EOFError):  # the wait for the answer finds out why
            self._host._send_user_message(message)

    def _reply(self, method: str) -> Reply:
        kind, message = self._wait()
        if kind == MSG_USERAUTH_SUCCESS:
            return Success()
        if kind == MSG_USERAUTH_FAILURE:
            return Failure(tuple(message.get_list()), message.get_boolean())
        if kind == METHOD_REPLY and method == "publickey":
            return PublicKeyOk()
        if kind == METHOD_REPLY and method == "password":
            return PasswordChangeRequest()
        if kind == METHOD_REPLY and method == "keyboard-interactive":
            return _read_questions(message)
        raise paramiko.SSHException(f"unexpected answer {kind} to a login with {method}")

    def _wait(self) -> tuple[int, paramiko.Message]:
        """Return the next message that is no banner; raises ConnectionClosed."""
        started = time.monotonic()
        while True:
            try:
                received = self._inbox.get(timeout=POLL_SECONDS)
            except queue.Empty:
                is_late = time.monotonic() - started > ANSWER_SECONDS
                if self._host.is_active() and not is_late:
                    continue
                received = None
            if received is None:
                raise self._closed(was_idle=False, waited=time.monotonic() - started)
            kind, message = received
            if kind != MSG_USERAUTH_BANNER:
                return kind, message
            self._on_banner(message.get_binary().decode(errors="replace"))

    def _closed(self, *, was_idle: bool, waited: float = 0.0) -> ConnectionClosed:
        error: Any = self._host.get_exception()
        # A connection that breaks (a reset, a time limit of TCP) is not one that the host ends.
        if error is not None and not isinstance(error, EOFError):
            raise error
        since_start = time.monotonic() - self._started
        return ConnectionClosed(self._host.disconnect_reason, was_idle=was_idle, waited=waited, since_start=since_start)


def _read_questions(message: paramiko.Message) -> InfoRequest:
    name, instruction = message.get_binary(), message.get_binary()
    message.get_binary()  # the language
    prompts = []
    for _ in range(message.get_int()):
        if not message.get_remainder():
            raise paramiko.SSHException("the host's questions end too early")
        text = message.get_binary().decode(errors="replace")
        prompts.append((text, message.get_boolean()))
    return InfoRequest(name.decode(errors="replace"), instruction.decode(errors="replace"), tuple(prompts))
