"""The sockets that the server listens on, and the addresses under which users reach them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dls.credentials import server_field
from dls.errors import ListenError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only programs on this computer can reach."""
BACKLOG = 128
"""Number of connections that may wait to be accepted."""


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket that only this user can open, and remove its file at the end. Raises ListenError."""
    if not hasattr(socket, "AF_UNIX"):
        raise ListenError("This system has no Unix sockets.", "Use --host and --port.")
    if path.is_socket():
        if _is_listening(path):
            raise ListenError(f"Another server listens on {path}.", "Name another one with --uds, or stop that server.")
        path.unlink()  # a server that was killed left it
    umask = os.umask(0o177)  # set before the file exists, so that no other user can ever open it
    try:
        listener = bind_unix(path)
    finally:
        os.umask(umask)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def bind_unix(path: Path) -> socket.socket:
    """Create the socket's file and listen on it. Raises ListenError."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"The socket {path} can't be made: {error.strerror or error}.", "Name another one with --uds."
        ) from error
    listener.listen(BACKLOG)
    return listener


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def tcp_socket(host: str, port: int) -> socket.socket:
    """Listen on a TCP address. Raises ListenError, whose hint names the option to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ListenError(f"{host!r} is no address of this computer.", "Name another one with --host.") from error
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _translate_bind_error(host, port, error) from error
    if sys.platform != "win32":  # on Windows it would let two programs share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _translate_bind_error(host, port, error) from error
    listener.listen(BACKLOG)
    return listener


def other_loopback(host: str, listener: socket.socket) -> socket.socket | None:
    """Listen on the other loopback address too, with the same port: "localhost" may mean either of them.

    Returns None where the listener is for no or for one loopback address of the user's own choice, or where the system
    has no other. Raises ListenError where somebody else has that port: clients would reach them.
    """
    if host not in ("127.0.0.1", "localhost"):
        return None
    address = "::1" if listener.family == socket.AF_INET else "127.0.0.1"
    try:
        return tcp_socket(address, int(listener.getsockname()[1]))
    except ListenError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.EADDRINUSE, errno.EACCES):
            raise
        return None


def _translate_bind_error(host: str, port: int, error: OSError) -> ListenError:
    if error.errno == errno.EADDRINUSE:
        return ListenError(
            f"Port {port} is in use.", "Choose another one with --port, or end the program that uses it."
        )
    if error.errno == errno.EACCES:
        return ListenError(f"Port {port} is forbidden to you.", "Choose one from 1024 on with --port.")
    if error.errno == errno.EADDRNOTAVAIL:
        return ListenError(f"{host} is no address of this computer.", "Name another one with --host.")
    return ListenError(f"The server can't listen on {host} port {port}: {error.strerror}.", "Try --host and --port.")


@dataclass(frozen=True)
class Address:
    """An address of the server, as the user types it into ITK-SNAP."""

    server: str
    port: int
    local_only: bool
    """Whether it works on this computer only."""


def addresses(host: str | None, port: int | None, secret: str | None) -> list[Address]:
    """Return every address under which the server can be reached; those for this computer only come last."""
    if host is None or port is None:
        return []
    if host in LOOPBACK:
        names = [("localhost", True), ("127.0.0.1", True)] if host != "::1" else [("localhost", True)]
    elif host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        names = [*((name, False) for name in _reachable_names()), ("localhost", True), ("127.0.0.1", True)]
    else:
        names = [(host, False)]
    return [Address(server_field(secret, name), port, local) for name, local in names]


def _reachable_names() -> list[str]:
    names = [socket.gethostname()]
    with contextlib.suppress(OSError):
        names += [str(info[4][0]) for info in socket.getaddrinfo(names[0], None, socket.AF_INET)]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing: it selects the address of the outgoing interface
        names.append(str(probe.getsockname()[0]))
    return [name for name in dict.fromkeys(names) if not name.startswith("127.")]
