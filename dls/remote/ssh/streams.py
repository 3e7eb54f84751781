"""The stream of bytes that carries an SSH connection: TCP, a channel of a jump host, or a command (ProxyCommand)."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

import paramiko

from dls.errors import ConnectError, ForwardError
from dls.remote.ssh.channel import Channel
from dls.remote.ssh.exceptions import NoCommonAlgorithm, Prohibited
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.target import Target

CONNECT_TIMEOUT = 15.0
"""Seconds to wait for the TCP connection and for the host's SSH banner, unless ConnectTimeout says otherwise."""
PROXY_TIMEOUT = 300.0
"""The same for a ProxyCommand, which may wait for a person who logs in by a browser."""
FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
"""Values of AddressFamily."""

Stream = socket.socket | paramiko.Channel
"""What paramiko can speak SSH over."""


class Carrier(Protocol):
    """What carries a connection and is closed after it: the connection to a jump host, or a child process."""

    def close(self) -> None:
        """Close it."""


class JumpHost(Carrier, Protocol):
    """A connection to a host that can reach the next one."""

    target: Target

    def open_tcp(self, host: str, port: int, timeout: float = 15.0) -> Channel:
        """Open a channel to the address as the jump host resolves it."""


def timeout_of(target: Target) -> float:
    """Return the seconds that the host may take to accept the connection, and to send its greeting."""
    return target.connect_timeout or (PROXY_TIMEOUT if target.proxy_command else CONNECT_TIMEOUT)


def open_stream(
    target: Target, jump_host: JumpHost | None, tell: Callable[[str], None] | None = None
) -> tuple[Stream, Carrier | None]:
    """Open the stream to the target; returns what has to be closed after it, too.

    `tell` is called with each line that a ProxyCommand writes to standard error: where to log in by a browser, say.
    Raises what sockets raise, ConnectError for a jump host or a command that can't reach the target, and Prohibited.
    """
    if jump_host is not None:
        return open_jump_channel(jump_host, target), jump_host
    if target.proxy_command:
        pipe = start_proxy_command(target.proxy_command, tell)
        return pipe.socket, pipe
    return _connect_tcp(target), None


def start_proxy_command(command: str, tell: Callable[[str], None] | None = None) -> Pipe:
    """Run a ProxyCommand, as OpenSSH does: by the user's shell, which it replaces."""
    return Pipe(command if os.name == "nt" else f"exec {command}", on_line=tell)


class ProxyFailed(ConnectError):
    """A ProxyCommand led to no SSH server."""


def proxy_error(target: Target, pipe: Pipe) -> ProxyFailed:
    """Return the error for a ProxyCommand over which no SSH server answered; its own words say why."""
    status = pipe.wait()
    lines = [line.strip() for line in pipe.errors.splitlines() if line.strip()]
    ended = f"ended with status {status}" if status is not None else "leads to no SSH server"
    said = f" It said: {lines[0].rstrip('.')}." if lines else ""
    return ProxyFailed(
        f"The ProxyCommand of {target.label} {ended}.{said}",
        "Run that command by hand, and look for a greeting that begins with SSH-2.0.",
        detail="\n".join(lines[-20:]) if len(lines) > 1 else "",
    )


@contextlib.contextmanager
def explain_proxy(target: Target, carrier: Carrier | None) -> Iterator[None]:
    """Let a ConnectError be that of the ProxyCommand, where one carries the connection and led to no SSH server."""
    try:
        yield
    except NoCommonAlgorithm:
        raise
    except ConnectError as error:
        if isinstance(carrier, Pipe):
            raise proxy_error(target, carrier) from error
        raise


def _connect_tcp(target: Target) -> socket.socket:
    family = FAMILIES.get(target.address_family, socket.AF_UNSPEC)
    addresses = socket.getaddrinfo(target.host, target.port, family, socket.SOCK_STREAM)
    failure: OSError = OSError("it has no address")
    for kind, type_, protocol, _, address in addresses:
        sock = socket.socket(kind, type_, protocol)
        try:
            sock.settimeout(timeout_of(target))
            if target.bind_address:
                sock.bind((target.bind_address, 0))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(None)
            return sock
        except OSError as error:
            failure = error
            with contextlib.suppress(OSError):
                sock.close()
    raise failure


def open_jump_channel(jump_host: JumpHost, target: Target) -> paramiko.Channel:
    """Open a channel of the jump host to the target; raises ConnectError where it can't reach it, and Prohibited."""
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
