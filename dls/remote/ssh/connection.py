"""The one door to the host: log in, run a script, write a file, open a channel."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from dls.errors import ConnectError, ForwardError, HostError, LinkError, LoginError
from dls.remote.ssh import host_keys
from dls.remote.ssh.auth import Login
from dls.remote.ssh.channel import CHANNEL_EXCEPTIONS, Channel
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.shell import Collector, wrapped
from dls.remote.ssh.target import Target
from dls.remote.ssh.transport import HostTransport

CONNECT_TIMEOUT = 15.0
"""Seconds to wait for the TCP connection and for the host's SSH greeting."""
POLL_SECONDS = 0.5
KEEPALIVE_SECONDS = 15
"""Between small packets on a silent connection: an installation can be silent for minutes, and NATs forget by then."""
CIPHERS_FIRST = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
"""paramiko puts AES-GCM last, behind 3DES; asked for first it gives 1.5 to 2 times the throughput."""
PROHIBITED = (1, 3)
"""Of RFC 4254, section 5.1: administratively prohibited, and unknown channel type (a server without the extension)."""


@dataclass(frozen=True)
class Completed:
    """A script that ran on the host."""

    status: int
    stdout: str
    stderr: str


class Prohibited(ForwardError):
    """The host's SSH server forbids this kind of forwarding."""


@contextlib.contextmanager
def translated(target: Target) -> Iterator[None]:
    """Turn what paramiko and the socket module raise into our errors: the one place that does."""
    try:
        yield
    except socket.gaierror as error:
        raise ConnectError(f"No host is known as {target.host!r}.", "Check the name, or your network.") from error
    except paramiko.AuthenticationException as error:
        raise LoginError(f"{target} refused the login: {_plain(error)}", "Check the user name and the key.") from error
    except IncompatiblePeer as error:
        raise ConnectError(
            f"{target.label} speaks no SSH algorithm in common with us: {_plain(error)}",
            "Its SSH server is very old; it has to be updated.",
        ) from error
    except paramiko.ChannelException as error:
        raise _channel_error(target, error) from error
    except (TimeoutError, ConnectionError, OSError) as error:
        raise ConnectError(
            f"{target.label} can't be reached on port {target.port}: {_plain(error)}",
            "Check that it is on, that name and port are right, and whether you need a VPN or a jump host.",
        ) from error
    except (paramiko.SSHException, EOFError) as error:
        raise _ssh_error(target, error) from error


def _plain(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.rstrip(".") + "."


def _channel_error(target: Target, error: paramiko.ChannelException) -> ForwardError:
    if error.code in PROHIBITED:
        return Prohibited(
            f"{target.label} forbids forwarding.",
            "Ask for AllowTcpForwarding or AllowStreamLocalForwarding in its sshd_config.",
        )
    return ForwardError(
        f"{target.label} could not open a channel: {_plain(error)}", "Is the server still running there?"
    )


def _ssh_error(target: Target, error: Exception) -> LinkError | ConnectError:
    if any(word in str(error).lower() for word in ("banner", "protocol version")):
        return ConnectError(
            f"What answers at {target.host} port {target.port} is no SSH server.",
            "Check the port: --ssh-port.",
        )
    return LinkError(f"The connection to {target.label} was lost: {_plain(error)}", "Run the command again.")


class Connection:
    """One authenticated SSH connection, and everything that is done over it."""

    def __init__(self, target: Target, transport: HostTransport, *, how: str, new_host_key: bool) -> None:
        self.target = target
        self.transport = transport
        self.how = how
        self.new_host_key = new_host_key
        self._outer: Connection | None = None

    @classmethod
    def open(
        cls,
        target: Target,
        prompter: Prompter,
        *,
        accept_new_host_key: bool = False,
        password: str | None = None,
        through: Connection | None = None,
    ) -> Connection:
        """Connect, check the host key and log in; `through` is the connection to the last jump host."""
        with translated(target):
            sock = _through(through, target) if through else _dial(target)
            transport = HostTransport(sock)
            try:
                new = _negotiate(transport, target, prompter, accept_new_host_key)
                how = Login(target, transport, prompter, password).run()
            except BaseException:
                transport.close()
                raise
        transport.set_keepalive(KEEPALIVE_SECONDS)
        connection = cls(target, transport, how=how, new_host_key=new)
        connection._outer = through
        return connection

    def is_active(self) -> bool:
        """Whether the connection still stands, as far as this side knows."""
        return bool(self.transport.is_active())

    @property
    def last_heard(self) -> float:
        """When the last packet of the host came, by `time.monotonic`: behind a large upload an answer can take long."""
        return self.transport.heard

    def answers_keepalive(self) -> bool:
        """Ask the host's SSH server for a sign of life and wait for it, however long that takes."""
        with contextlib.suppress(*CHANNEL_EXCEPTIONS):
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

        The script goes over standard input to `sh`; only what stands between our own random markers is its output
        (a login shell may be csh or fish, or print a greeting). `on_line` sees each line of output as it comes.
        `timeout` is the longest silence in seconds. A script that fails is returned, not raised.
        """
        mark = secrets.token_hex(12)
        with translated(self.target):
            channel = _open_session(self.transport)
            try:
                channel.exec_command("exec sh -s")
                collector = Collector(mark, on_line)
                stderr = _drain_stderr(channel)
                with contextlib.suppress(OSError):  # a shell that ends at once closes the channel under us
                    channel.sendall(wrapped(script, mark).encode())
                    channel.shutdown_write()
                channel.settimeout(POLL_SECONDS)
                while data := self._next(channel, timeout):
                    collector.feed(data)
                stderr.join()
                status = channel.recv_exit_status()
            finally:
                channel.close()
        if collector.status is None and not self.is_active():
            raise LinkError(f"The connection to {self.target.label} was lost.", "Run the command again.")
        if collector.status is None:
            raise HostError(
                f"{self.target.label} does not run commands as it should (its shell ended with status {status}).",
                "Log in by hand and look whether `sh` works there.",
                detail=(stderr.text or collector.noise)[-2000:],
            )
        return Completed(collector.status, collector.text, stderr.text)

    def _next(self, channel: paramiko.Channel, timeout: float | None) -> bytes:
        # In short steps: an unbounded wait can't be interrupted by Ctrl-C on Windows, and misses a link that died.
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
        """Go on writing a file on the host from an offset on, readable by its user only; needs SFTP."""
        where = self.target.label
        try:
            with (
                contextlib.closing(paramiko.SFTPClient.from_transport(self.transport)) as sftp,  # type: ignore[type-var]
                sftp.open(path, "r+b" if offset else "wb") as file,  # type: ignore[union-attr]
            ):
                file.chmod(0o600)
                file.set_pipelined(True)
                file.seek(offset)
                for piece in pieces:
                    file.write(piece)
        except (paramiko.SSHException, EOFError) as error:
            if not self.is_active():
                raise LinkError(
                    f"The connection to {where} was lost.", "Run it again: it goes on from there."
                ) from error
            raise HostError(f"{where} takes no files over SFTP.", "Copy the file there by another way.") from error
        except OSError as error:
            raise HostError(
                f"{path} can't be written on {where}: {_plain(error)}", "Is the disk full or read-only?"
            ) from error

    def open_unix(self, path: str, timeout: float = 15.0) -> Channel:
        """Open a channel to a Unix socket on the host, or raise ForwardError.

        OpenSSH does not say whether it forbids that or nobody listens there: both are "connect failed".
        """
        with translated(self.target):
            return Channel(self.transport.open_streamlocal(path, timeout))

    def open_tcp(self, host: str, port: int, timeout: float = 15.0) -> Channel:
        """Open a channel to an address as the host sees it; raises Prohibited where the host forbids it."""
        with translated(self.target):
            address = ("127.0.0.1", 0)
            return Channel(self.transport.open_channel("direct-tcpip", (host, port), address, timeout=timeout))

    def close(self) -> None:
        """Close the connection, and those to the jump hosts under it."""
        self.transport.close()
        if self._outer is not None:
            self._outer.close()


def _dial(target: Target) -> socket.socket:
    sock = socket.create_connection((target.host, target.port), timeout=CONNECT_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(None)
    return sock


def _through(jump: Connection, target: Target) -> paramiko.Channel:
    try:
        return jump.open_tcp(target.host, target.port).raw
    except Prohibited:
        raise
    except ForwardError as error:
        # A wrong port, host or name all say "connect failed".
        raise ConnectError(
            f"{jump.target.label} can't reach {target.host} on port {target.port}.",
            "Check the name and the port as the jump host knows them.",
        ) from error


def _negotiate(transport: HostTransport, target: Target, prompter: Prompter, accept_new: bool) -> bool:
    transport.banner_timeout = CONNECT_TIMEOUT
    options = transport.get_security_options()
    options.ciphers = (*CIPHERS_FIRST, *(c for c in options.ciphers if c not in CIPHERS_FIRST))
    options.key_types = host_keys.preferred_kinds(host_keys.known_keys(target), tuple(options.key_types))
    transport.start_client(timeout=CONNECT_TIMEOUT)
    return host_keys.verify(target, transport.get_remote_server_key(), prompter, accept_new=accept_new)


def _open_session(transport: paramiko.Transport) -> paramiko.Channel:
    # With `MaxSessions 1` sshd refuses a session now and then while it still closes the last one (measured: 20 ms).
    for attempt in range(10):
        try:
            return transport.open_session(timeout=30)
        except paramiko.ChannelException:
            if attempt == 9:
                raise
            threading.Event().wait(0.02 * (attempt + 1))
    raise AssertionError("unreachable")


class _StderrDrain(threading.Thread):
    """Reads standard error beside standard output, so that neither can fill up and block the script."""

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
            except (OSError, EOFError):
                return
            if not data:
                return
            self.text = (self.text + data.decode(errors="replace"))[-20000:]


def _drain_stderr(channel: paramiko.Channel) -> _StderrDrain:
    drain = _StderrDrain(channel)
    drain.start()
    return drain
