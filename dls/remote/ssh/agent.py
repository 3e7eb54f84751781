"""The SSH agent (draft-ietf-sshm-ssh-agent): its keys and its signatures, each within a time limit."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dls.remote.ssh.key_types import CERTIFICATE
from dls.remote.ssh.public_keys import PublicKey
from dls.remote.ssh.wire import Reader, string

REQUEST_IDENTITIES, IDENTITIES_ANSWER, SIGN_REQUEST, SIGN_RESPONSE, EXTENSION = 11, 12, 13, 14, 27
SIGN_FLAGS = {"rsa-sha2-256": 2, "rsa-sha2-512": 4}
"""Flags of a request for a signature; other algorithms have none."""
PIPE = r"\\.\pipe\openssh-ssh-agent"
"""Where OpenSSH's agent listens on Windows."""
PAGEANT = "Pageant"
"""Stands for PuTTY's agent, which has no path."""
ANSWER_SECONDS = 5.0
"""Longest time for an answer that needs no person."""
SIGN_SECONDS = 120.0
"""Longest time for a signature, which a person may have to confirm: the usual time that hosts give a login."""
SLOW_SECONDS = 2.0
"""After this time without a signature, the person is told that the agent may wait for them."""
POLL_SECONDS = 0.2
"""Seconds of one wait for the agent: on Windows, Ctrl-C can't interrupt an unbounded one."""
MAX_BYTES = 256 << 10
"""Largest message of an agent, as in OpenSSH."""

T = TypeVar("T")


class AgentError(Exception):
    """The agent can't be reached, does not answer, or makes no sense; the text says which."""


class AgentDeclined(AgentError):
    """The agent does not sign: its person declined, or the security key is not there."""


class _Stream(Protocol):
    def send(self, data: bytes, /) -> object: ...
    def recv(self, size: int, /) -> bytes: ...
    def close(self) -> object: ...


@dataclass(frozen=True)
class AgentKey:
    """A key or certificate that an agent holds."""

    agent: Agent
    public: PublicKey
    comment: str

    def sign(self, algorithm: str, data: bytes, on_slow: Callable[[], None]) -> bytes:
        """Return the signature of the data, or raise AgentError.

        `on_slow` is called once when the agent seems to wait for its person.
        """
        name = algorithm.removesuffix(CERTIFICATE)
        request = bytes([SIGN_REQUEST]) + string(self.public.blob) + string(data)
        reader = self.agent.request(request + SIGN_FLAGS.get(name, 0).to_bytes(4, "big"), SIGN_SECONDS, on_slow)
        if reader.take(1)[0] != SIGN_RESPONSE:
            raise AgentDeclined("the SSH agent declined to sign")
        try:
            signature = reader.string()
            made = Reader(signature).string().decode("ascii")
        except ValueError:
            raise AgentError("the SSH agent's signature makes no sense") from None
        if self.public.kind.startswith("ssh-rsa") and made != name:
            raise AgentDeclined(f"the SSH agent makes no {name} signatures")
        return signature


def agent_places(identity_agent: str) -> list[str]:
    """Return where agents may listen, for a value of IdentityAgent: a path, `SSH_AUTH_SOCK` or `none`."""
    if identity_agent == "none":
        return []
    if identity_agent != "SSH_AUTH_SOCK":
        return [identity_agent]
    path = os.environ.get("SSH_AUTH_SOCK", "")
    if path:
        return [path]
    return [PIPE, PAGEANT] if os.name == "nt" else []


class Agent:
    """A connection to an agent."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._stream: _Stream | None = None
        self.is_silent = False
        """Whether it did not answer in time."""

    @property
    def is_open(self) -> bool:
        """Whether the agent can still be asked."""
        return self._stream is not None

    def connect(self) -> None:
        """Connect to the agent, or raise AgentError."""
        try:
            self._stream = self._within(ANSWER_SECONDS, lambda: _open(self.place))
        except OSError as error:
            raise AgentError(f"it can't be reached: {error.strerror or error}") from None

    def keys(self) -> list[AgentKey]:
        """Return the keys that the agent offers, in its order, or raise AgentError."""
        try:
            reader = self.request(bytes([REQUEST_IDENTITIES]), ANSWER_SECONDS)
            if reader.take(1)[0] != IDENTITIES_ANSWER:
                raise AgentError("it lists no keys")
            found = [(reader.string(), reader.string()) for _ in range(reader.number(4))]
        except ValueError:
            raise AgentError("its answer makes no sense") from None
        return [AgentKey(self, PublicKey(blob), comment.decode(errors="replace")) for blob, comment in found]

    def bind(self, host_key: bytes, session: bytes, signature: bytes) -> None:
        """Tell the agent which host the login goes to: keys that are restricted to some hosts need it (ssh-add -h).

        An agent that does not know this extension (OpenSSH's PROTOCOL.agent, section 1) refuses, which does no harm.
        """
        name, is_forwarded = b"session-bind@openssh.com", b"\0"
        fields = string(name) + string(host_key) + string(session) + string(signature) + is_forwarded
        self.request(bytes([EXTENSION]) + fields, ANSWER_SECONDS)

    def request(self, message: bytes, limit: float, on_slow: Callable[[], None] | None = None) -> Reader:
        """Send a message and return the answer, or raise AgentError; after the time limit the connection is closed."""
        try:
            answer = self._within(limit, lambda: self._exchange(message), on_slow)
        except (OSError, EOFError):
            self.close()
            raise AgentError("it closed the connection") from None
        return Reader(answer)

    def _exchange(self, message: bytes) -> bytes:
        if self._stream is None:
            raise EOFError
        self._stream.send(string(message))
        size = int.from_bytes(self._read(4), "big")
        if not 1 <= size <= MAX_BYTES:
            raise EOFError
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._stream.recv(size - len(data)) if self._stream is not None else b""
            if not piece:
                raise EOFError
            data += piece
        return data

    def _within(self, limit: float, work: Callable[[], T], on_slow: Callable[[], None] | None = None) -> T:
        # In a thread of its own: neither a pipe of Windows nor Pageant has a time limit.
        done: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                done.put((work(), None))
            except Exception as error:
                done.put((None, error))

        threading.Thread(target=run, name="dls-agent", daemon=True).start()
        started = time.monotonic()
        while True:
            try:
                result, error = done.get(timeout=POLL_SECONDS)
                break
            except queue.Empty:
                waited = time.monotonic() - started
                if waited > limit:
                    self.is_silent = True
                    self.close()
                    raise AgentError(f"it did not answer within {limit:.0f} s") from None
                if on_slow is not None and waited > SLOW_SECONDS:
                    on_slow()
                    on_slow = None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def close(self) -> None:
        """Close the connection; a request under way ends."""
        stream, self._stream = self._stream, None
        if isinstance(stream, socket.socket):
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            stream.close()
        elif stream is not None:
            # A pipe of Windows can't be closed before the read ends that a silent agent lets wait.
            threading.Thread(target=_close, args=(stream,), name="dls-agent-close", daemon=True).start()


def _close(stream: _Stream) -> None:
    with contextlib.suppress(OSError):
        stream.close()


class _Pipe:
    """A named pipe of Windows."""

    def __init__(self, path: str) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                self._file = open(path, "r+b", buffering=0)  # noqa: SIM115, PTH123 - no path of a file
                return
            except OSError as error:  # EINVAL: the agent has not let go of its last client
                if error.errno != errno.EINVAL or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def send(self, data: bytes) -> None:
        self._file.write(data)

    def recv(self, size: int) -> bytes:
        return self._file.read(size) or b""

    def close(self) -> None:
        self._file.close()


def _open(place: str) -> _Stream:
    if place == PAGEANT:
        pageant = importlib.import_module("paramiko.win_pageant")  # can be imported on Windows only
        if not pageant.can_talk_to_agent():
            raise FileNotFoundError(2, "Pageant does not run")
        stream: _Stream = pageant.PageantConnection()
        return stream
    if place.startswith("\\\\") or (os.name == "nt" and place.startswith("//")):  # Git's shell takes slashes
        return _Pipe(place)
    if not hasattr(socket, "AF_UNIX"):  # Python on Windows; an agent of WSL or Cygwin there has such a path
        raise OSError("on Windows only a named pipe can")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A listener whose queue is full makes connections wait.
        sock.settimeout(ANSWER_SECONDS)
        sock.connect(place)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock
