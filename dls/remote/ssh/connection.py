"""The connection to a host: log in, run scripts, write files and open channels, all over one SSH transport."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import paramiko

from dls.errors import ConnectError, ForwardError, HostError, LinkError
from dls.remote.ssh import host_keys
from dls.remote.ssh.auth import Authenticator
from dls.remote.ssh.channel import Channel
from dls.remote.ssh.exceptions import (
    SSH_EXCEPTIONS,
    Prohibited,
    connection_error,
    session_error,
    sftp_error,
    translate_errors,
)
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.refusals import is_password_expired, password_expired
from dls.remote.ssh.shell import MAX_OUTPUT, OutputCollector, wrap_script
from dls.remote.ssh.target import Target
from dls.remote.ssh.transport import HostTransport

__all__ = ["Completed", "Connection", "Prohibited"]

CONNECT_TIMEOUT = 15.0
"""Seconds to wait for the TCP connection and for the host's SSH banner."""
POLL_SECONDS = 0.5
"""Seconds that one read of a script's output waits before it checks the connection and the time limit."""
KEEPALIVE_SECONDS = 15
"""Seconds between keep-alive packets: an installation can be silent for minutes, and NATs drop silent connections."""
PREFERRED_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""Ciphers to propose first: paramiko puts AES-GCM last, behind 3DES; it has 1.5 to 2 times the throughput."""
SESSION_ATTEMPTS = 10
"""Maximum number of attempts to open a session channel."""


@dataclass(frozen=True)
class Completed:
    """Exit status and output of a script that ran on the host."""

    status: int
    stdout: str
    stderr: str


class Connection:
    """One authenticated SSH connection to a host, and everything that is done over it."""

    def __init__(
        self,
        target: Target,
        transport: HostTransport,
        *,
        credential: str,
        new_host_key: bool,
        jump_host: Connection | None = None,
    ) -> None:
        self.target = target
        self.transport = transport
        self.credential = credential
        """The credential that the host accepted, in words: "the key id_ed25519", "a password"."""
        self.new_host_key = new_host_key
        """Whether the host key was added to known_hosts during this login."""
        self.jump_host = jump_host
        """The connection to the last jump host, which carries this one; None without jump hosts."""
        self._has_run = False
        """Whether a script has run, so that the session works."""

    @classmethod
    def open(
        cls,
        target: Target,
        prompter: Prompter,
        *,
        accept_new_host_key: bool = False,
        password: str | None = None,
        jump_host: Connection | None = None,
    ) -> Connection:
        """Connect, check the host key and log in; `jump_host` is the connection to the last jump host.

        Raises ConnectError, HostKeyError, LoginError or LinkError.
        """
        with translate_errors(partial(connection_error, target)):
            sock = _open_jump_channel(jump_host, target) if jump_host else _connect_tcp(target)
            transport = HostTransport(sock)
            try:
                new = _negotiate(transport, target, prompter, accept_new_host_key)
                credential = Authenticator(target, transport, prompter, password).authenticate()
            except BaseException:
                transport.close()
                raise
        transport.set_keepalive(KEEPALIVE_SECONDS)
        return cls(target, transport, credential=credential, new_host_key=new, jump_host=jump_host)

    def _translate_errors(self) -> AbstractContextManager[None]:
        return translate_errors(partial(connection_error, self.target))

    def is_active(self) -> bool:
        """Whether the connection is open, as far as this side knows."""
        return bool(self.transport.is_active())

    @property
    def last_heard(self) -> float:
        """When the host's last packet came, by `time.monotonic`; behind a large upload an answer can take long."""
        return self.transport.last_heard

    def answers_keepalive(self) -> bool:
        """Send a keep-alive request to the host's SSH server and wait for the reply, without a time limit."""
        with contextlib.suppress(*SSH_EXCEPTIONS):
            self.transport.global_request("keepalive@openssh.com", wait=True)
            return self.is_active()
        return False

    def run(
        self,
        script: str,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a POSIX shell script on the host, whatever the login shell is and prints.

        The script goes over standard input to `sh`; only the text between two random markers is taken as its output
        (a login shell may be csh or fish, or print a greeting). `on_line` is called with each line of output when it
        comes. `timeout` is the longest silence in seconds; LinkError is raised after it, and HostError for output
        without end. A script that fails is returned, not raised.
        """
        marker = secrets.token_hex(12)
        collector = OutputCollector(marker, on_line)
        session_errors = translate_errors(
            partial(session_error, self.target, self.is_active, is_first=not self._has_run)
        )
        with session_errors, contextlib.closing(_open_session(self.transport)) as channel:
            status, stderr = self._execute(channel, wrap_script(script, marker), collector, timeout)
        if collector.status is None and not self.is_active():
            raise session_error(self.target, self.is_active, EOFError("it was closed"), is_first=not self._has_run)
        if collector.status is None and is_password_expired(stderr):
            raise password_expired(self.target)
        if collector.status is None:
            raise HostError(
                f"{self.target.label} does not run commands as it should (its shell ended with status {status}).",
                "Log in by hand and check whether `sh` works there.",
                detail=(stderr or collector.noise)[-2000:],
            )
        self._has_run = True
        return Completed(collector.status, collector.text, stderr)

    def _execute(
        self, channel: paramiko.Channel, script: str, collector: OutputCollector, timeout: float | None
    ) -> tuple[int, str]:
        """Run `sh` on the channel, feed its output to the collector, and return its status and standard error."""
        channel.exec_command("exec sh -s")
        stderr = _StderrReader(channel)
        stderr.start()
        with contextlib.suppress(OSError):  # a login shell that ends at once closes the channel while we send
            channel.sendall(script.encode())
            channel.shutdown_write()
        channel.settimeout(POLL_SECONDS)
        while data := self._receive(channel, timeout):
            collector.feed(data)
            if collector.is_too_large:
                raise HostError(
                    f"{self.target.label} answers a script with more than {MAX_OUTPUT >> 20} MiB.",
                    "Log in by hand and check what its shell prints there.",
                    detail=collector.noise[-2000:],
                )
        stderr.join()
        return channel.recv_exit_status(), stderr.text

    def _receive(self, channel: paramiko.Channel, timeout: float | None) -> bytes:
        # Waits in short steps: on Windows Ctrl-C can't interrupt an unbounded wait, and a lost link must be noticed.
        started = time.monotonic()
        while True:
            try:
                return channel.recv(65536)
            except TimeoutError:
                if timeout is not None and time.monotonic() - started >= timeout:
                    raise LinkError(
                        f"{self.target.label} said nothing for {timeout:.0f} s.",
                        "Is the host very busy? Run the command again.",
                    ) from None
                if not self.is_active():
                    return b""

    def append(self, path: str, offset: int, pieces: Iterable[bytes]) -> None:
        """Write pieces to a file on the host from an offset on, over SFTP; only its user can read the file.

        Raises HostError where the host has no SFTP or the file can't be written, LinkError when the link is lost.
        """
        with (
            translate_errors(partial(sftp_error, self.target, path, self.is_active)),
            contextlib.closing(paramiko.SFTPClient.from_transport(self.transport)) as sftp,  # type: ignore[type-var]
            sftp.open(path, "r+b" if offset else "wb") as file,  # type: ignore[union-attr]
        ):
            file.chmod(0o600)
            file.set_pipelined(True)
            file.seek(offset)
            for piece in pieces:
                file.write(piece)

    def open_unix(self, path: str, timeout: float = 15.0) -> Channel:
        """Open a channel to a Unix socket on the host, or raise ForwardError.

        OpenSSH reports "connect failed" both where it forbids such channels and where no server listens.
        """
        with self._translate_errors():
            return Channel(self.transport.open_streamlocal(path, timeout))

    def open_tcp(self, host: str, port: int, timeout: float = 15.0) -> Channel:
        """Open a channel to an address as the host resolves it; raises Prohibited where the host forbids it."""
        with self._translate_errors():
            address = ("127.0.0.1", 0)
            return Channel(self.transport.open_channel("direct-tcpip", (host, port), address, timeout=timeout))

    def close(self) -> None:
        """Close the connection, and the connections to the jump hosts that carry it."""
        self.transport.close()
        if self.jump_host is not None:
            self.jump_host.close()


def _connect_tcp(target: Target) -> socket.socket:
    sock = socket.create_connection((target.host, target.port), timeout=CONNECT_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(None)
    return sock


def _open_jump_channel(jump_host: Connection, target: Target) -> paramiko.Channel:
    try:
        return jump_host.open_tcp(target.host, target.port).raw
    except Prohibited:
        raise
    except ForwardError as error:
        # A wrong port, host or name all give "connect failed".
        raise ConnectError(
            f"{jump_host.target.label} can't reach {target.host} on port {target.port}.",
            "Check the name and the port as the jump host knows them.",
        ) from error


def _negotiate(transport: HostTransport, target: Target, prompter: Prompter, accept_new: bool) -> bool:
    """Exchange keys and check the host key; True when the key is new."""
    transport.banner_timeout = CONNECT_TIMEOUT
    options = transport.get_security_options()
    options.ciphers = (*PREFERRED_CIPHERS, *(c for c in options.ciphers if c not in PREFERRED_CIPHERS))
    options.key_types = host_keys.order_key_types(host_keys.known_keys(target), tuple(options.key_types))
    transport.start_client()  # ends by itself: the greeting and the key exchange have time limits of their own
    return host_keys.verify(target, transport.get_remote_server_key(), prompter, accept_new=accept_new)


def _open_session(transport: paramiko.Transport) -> paramiko.Channel:
    # With `MaxSessions 1` sshd sometimes refuses a session while it still closes the previous one (measured: 20 ms).
    for attempt in range(1, SESSION_ATTEMPTS):
        try:
            return transport.open_session(timeout=30)
        except paramiko.ChannelException:
            time.sleep(0.02 * attempt)
    return transport.open_session(timeout=30)


class _StderrReader(threading.Thread):
    """Reads standard error in parallel to standard output: a stream that nobody reads would block the script."""

    def __init__(self, channel: paramiko.Channel) -> None:
        super().__init__(name="dls-stderr", daemon=True)
        self._channel = channel
        self.text = ""

    def run(self) -> None:
        while True:
            try:
                data = self._channel.recv_stderr(65536)
            except TimeoutError:
                if self._channel.closed:
                    return
                continue
            except SSH_EXCEPTIONS:
                return
            if not data:
                return
            self.text = (self.text + data.decode(errors="replace"))[-20000:]
