"""The connection to a host: log in, run scripts, write files and open channels, all over one SSH transport."""

from __future__ import annotations

from dls.remote.ssh import lean_paramiko  # noqa: F401 - before paramiko

# isort: split

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import paramiko

from dls.credentials import redact
from dls.errors import ForwardError
from dls.remote.ssh import host_keys, login_files, sending
from dls.remote.ssh.auth import Authenticator
from dls.remote.ssh.channel import Channel
from dls.remote.ssh.exceptions import SSH_EXCEPTIONS, Prohibited, connection_error, session_error, translate_errors
from dls.remote.ssh.execution import Execution
from dls.remote.ssh.key_exchange import exchange_keys
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.refusals import is_password_expired, password_expired
from dls.remote.ssh.shell import Completed, OutputCollector, shell_command, wrap_script
from dls.remote.ssh.streams import Carrier, Stream, explain_proxy, open_stream
from dls.remote.ssh.target import Target
from dls.remote.ssh.transport import HostTransport

__all__ = ["Completed", "Connection", "Prohibited"]

KEEPALIVE_SECONDS = 15
"""Seconds between keep-alive packets: an installation can be silent for minutes, and NATs drop silent connections."""
UNUSED_PORT = 1
"""Port on which practically no host listens (tcpmux)."""
ALIVE_SECONDS = 10.0
"""Seconds that the host's SSH server may take to answer, when its login shell says nothing."""
SESSION_ATTEMPTS = 10
"""Maximum number of attempts to open a session channel."""


class Connection:
    """One authenticated SSH connection to a host, and everything that is done over it."""

    def __init__(
        self,
        target: Target,
        transport: HostTransport,
        *,
        credential: str,
        new_host_key: str = "",
        carriers: Sequence[Carrier] = (),
        kind: str = "paramiko",
    ) -> None:
        self.target = target
        self.transport = transport
        self.credential = credential
        """The credential that the host accepted, in words: "the key id_ed25519", "a password"."""
        self.new_host_key = new_host_key
        """What became of a host key that was new, as the end of "its host key …"; empty for a known one."""
        self.kind = kind
        """What logged in: `paramiko`, `openssh` (this computer's `ssh`) or `via` (another command)."""
        self.carriers = carriers
        """What carries this connection, the nearest to it first: the last jump host's connection, a child process."""
        self.dead_seconds = sending.DEAD_SECONDS
        """Seconds after which a long script has no host any more that sends no packet, though it is asked for one."""
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
        may_use_openssh: bool = True,
    ) -> Connection:
        """Connect, check the host key and log in; `jump_host` is the connection to the last jump host.

        With `may_use_openssh`, NeedsOpenSsh is raised for a login that OpenSSH's `ssh` could make where paramiko can't.

        Raises ConnectError, HostKeyError, LoginError or LinkError.
        """
        with translate_errors(partial(connection_error, target)):
            stream, carrier = open_stream(target, jump_host, prompter.tell)
        with contextlib.ExitStack() as failed:
            if isinstance(carrier, Pipe):
                failed.callback(carrier.close)
            with explain_proxy(target, carrier):
                transport, new, credential = _log_in(
                    target, stream, prompter, accept_new_host_key, password, may_use_openssh
                )
            failed.pop_all()
        if isinstance(carrier, Pipe):
            carrier.on_line = None  # what it says at the connection's end is no news
        transport.set_keepalive(target.alive_interval or KEEPALIVE_SECONDS)
        carriers = () if carrier is None else (carrier,)
        return cls(target, transport, credential=credential, new_host_key=new, carriers=carriers)

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
        last_moved: Callable[[], float] | None = None,
    ) -> Completed:
        """Run a POSIX shell script on the host, whatever the login shell is and prints.

        The script goes over standard input to `sh`; only the text between two random markers is taken as its output
        (a login shell may be csh or fish, or print a greeting). `on_line` is called with each line of output when it
        comes. `timeout` is the longest silence in seconds, with nothing heard from `last_moved` either (when bytes
        moved for the script elsewhere, by `time.monotonic`); LinkError is raised after it, sooner where the host's SSH
        server says nothing either, and HostError for output without end. A script that fails is returned, not raised.
        """
        marker = secrets.token_hex(12)
        collector = OutputCollector(marker, on_line)
        text = wrap_script(script, marker)
        session_errors = translate_errors(
            partial(session_error, self.target, self.is_active, is_first=not self._has_run)
        )
        is_long = timeout is None or timeout > self.dead_seconds
        watch = sending.watched(self, dead=self.dead_seconds) if is_long else contextlib.nullcontext()
        with session_errors, watch, contextlib.closing(_open_session(self.transport)) as channel:
            channel.exec_command(shell_command(marker))
            execution = Execution(self.target.label, channel, collector, text, self.is_active, self._is_alive)
            status, stderr = execution.run(timeout, last_moved or (lambda: 0.0))
        if collector.status is None and not self.is_active():
            raise session_error(self.target, self.is_active, EOFError("it was closed"), is_first=not self._has_run)
        if collector.status is None and is_password_expired(stderr):
            raise password_expired(self.target)
        if collector.status is None:
            raise login_files.shell_error(self.target.label, collector, status, stderr, text)
        self._has_run = True
        return Completed(collector.status, collector.text, redact(stderr))

    def _is_alive(self) -> bool:
        """Return whether the host's SSH server answers within ALIVE_SECONDS."""
        answered = threading.Event()

        def ask() -> None:
            if self.answers_keepalive():
                answered.set()

        threading.Thread(target=ask, name="dls-alive", daemon=True).start()
        return answered.wait(ALIVE_SECONDS)

    def append(self, path: str, offset: int, pieces: Iterable[bytes]) -> None:
        """Write pieces to a file on the host from an offset on; only its user can read the file.

        It goes over SFTP, and through a command's input where the host has none. Raises HostError where the file can't
        be written, LinkError when the link is lost or the host falls silent.
        """
        sending.append(self, path, offset, pieces, lambda: _open_shell(self.transport))

    def open_shell(self) -> Stream:
        """Run `sh` on the host and return its standard input and output as a stream."""
        with self._translate_errors():
            return _open_shell(self.transport)

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
        """Close the connection and what carries it: the connections to jump hosts, child processes."""
        with contextlib.suppress(*SSH_EXCEPTIONS):  # what carries it may have ended before
            self.transport.close()
        for carrier in self.carriers:
            carrier.close()

    def forbids_forwarding(self) -> bool:
        """Ask whether the host forbids all forwarding, of TCP and of Unix sockets; costs a round trip.

        OpenSSH that forbids the first forbids the second too, and says so for the first only.
        """
        try:
            self.open_tcp("127.0.0.1", UNUSED_PORT).close()
        except Prohibited:
            return True
        except ForwardError:
            pass
        return False


def _log_in(
    target: Target,
    stream: Stream,
    prompter: Prompter,
    accept_new: bool,
    password: str | None,
    may_use_openssh: bool,
) -> tuple[HostTransport, str, str]:
    """Speak SSH over the stream; returns the transport, what became of a new host key, and the credential in words."""
    with translate_errors(partial(connection_error, target)):
        transport = HostTransport(stream)
        try:
            key = exchange_keys(transport, target)
            accepted = host_keys.verify(target, key, prompter, accept_new=accept_new)
            authenticator = Authenticator(
                target, transport, prompter, password=password, may_use_openssh=may_use_openssh
            )
            return transport, accepted.note, authenticator.authenticate()
        except BaseException:
            transport.close()
            raise


def _open_shell(transport: paramiko.Transport) -> paramiko.Channel:
    channel = _open_session(transport)
    channel.exec_command("exec sh")
    return channel


def _open_session(transport: paramiko.Transport) -> paramiko.Channel:
    # With `MaxSessions 1` sshd sometimes refuses a session while it still closes the previous one (measured: 20 ms).
    for attempt in range(1, SESSION_ATTEMPTS):
        try:
            return transport.open_session(timeout=30)
        except paramiko.ChannelException:
            time.sleep(0.02 * attempt)
    return transport.open_session(timeout=30)
