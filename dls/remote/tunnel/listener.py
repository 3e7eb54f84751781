"""The local port: sshtunnel's listener and one on [::1], open while the link behind them is lost and restored."""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import paramiko
import sshtunnel

from dls.contract import DEFAULT_PORT
from dls.errors import ForwardError
from dls.remote.tunnel.ipv6_listener import Ipv6Listener

PORTS_TO_TRY = 20
"""Number of ports that are tried, from the default one on."""
TAKEN = (errno.EADDRINUSE, errno.EACCES, 10048, 10013)
"""Error numbers of a port that is in use or forbidden; the last two are those of Windows."""

ConnectionHandler = Callable[[socket.socket], None]
"""A function that answers one connection to the local port."""

Opened = TypeVar("Opened")

_log = logging.getLogger("dls.forward")
_log.addHandler(logging.NullHandler())


class _Handler(socketserver.BaseRequestHandler):
    """One connection to the local port; sshtunnel runs each in its own thread."""

    serve: ConnectionHandler
    remote_address = ("127.0.0.1", 1)
    """An address that sshtunnel wants to have; `serve` decides where requests go."""

    def handle(self) -> None:
        self.serve(self.request)


def _handler(serve: ConnectionHandler) -> type[_Handler]:
    return type("Handler", (_Handler,), {"serve": staticmethod(serve)})


class _Server(sshtunnel._ThreadingForwardServer):  # type: ignore[misc]
    """sshtunnel's threaded listener. On Windows, address reuse would let two programs share one port."""

    allow_reuse_address = sys.platform != "win32"
    request_queue_size = 128
    bind_errors: list[OSError]

    def server_bind(self) -> None:
        try:
            super().server_bind()
        except OSError as error:
            self.bind_errors.append(error)
            raise

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("a forwarded connection ended", exc_info=True)


class _Forwarder(sshtunnel.SSHTunnelForwarder):  # type: ignore[misc]
    """sshtunnel over a transport that is logged in already: its own login checks no host key."""

    def __init__(self, transport: paramiko.Transport, serve: ConnectionHandler, address: tuple[str, int]) -> None:
        self._logged_in = transport
        self._serve = serve
        self.bind_errors: list[OSError] = []
        super().__init__(
            ssh_address_or_host=("localhost", 22),
            ssh_config_file=None,
            ssh_username="-",
            ssh_password="-",  # noqa: S106 - sshtunnel does not start without one; it is never sent
            allow_agent=False,
            host_pkey_directories=[],
            local_bind_address=address,
            remote_bind_address=_Handler.remote_address,
            logger=_log,
            mute_exceptions=False,
        )

    def _connect_to_gateway(self) -> None:
        self._transport = self._logged_in

    def _make_ssh_forward_handler_class(self, remote_address_: tuple[str, int]) -> type[_Handler]:
        return _handler(self._serve)

    def _make_ssh_forward_server_class(self, remote_address_: tuple[str, int]) -> type[_Server]:
        return type("Server", (_Server,), {"bind_errors": self.bind_errors, "daemon_threads": True})

    def _stop_transport(self, force: bool = False) -> None:
        # Leave the transport open: it belongs to the Connection.
        for server in self._server_list:
            server.shutdown()
            server.server_close()
        self.is_alive = False
        self.__dict__.pop("_transport", None)  # sshtunnel closes it when it is garbage collected


class Listener:
    """A local port that leads to the server on the host, on 127.0.0.1 and, where the system has it, on [::1]."""

    def __init__(self, forwarder: _Forwarder, ipv6: Ipv6Listener | None) -> None:
        self._forwarder = forwarder
        self._ipv6 = ipv6
        self.port: int = forwarder.local_bind_port

    @classmethod
    def open(cls, transport: paramiko.Transport, serve: ConnectionHandler, port: int | None = None) -> Listener:
        """Listen on this port or else on the first one from 8911 on that is free on both loopback addresses.

        Raises ForwardError when the port, or every port that is tried, is taken or forbidden.
        """
        return _first_that_opens(port, lambda candidate: cls._open_one(transport, serve, candidate))

    @classmethod
    def _open_one(cls, transport: paramiko.Transport, serve: ConnectionHandler, port: int) -> Listener:
        """Listen on one port; raises OSError."""
        forwarder = _Forwarder(transport, serve, ("127.0.0.1", port))
        try:
            forwarder.start()
            return cls(forwarder, _open_ipv6(forwarder.local_bind_port, serve))
        except sshtunnel.BaseSSHTunnelForwarderError:
            forwarder.stop()
            raise (*forwarder.bind_errors, OSError(errno.EADDRINUSE, "it is in use"))[0] from None
        except OSError:
            forwarder.stop()
            raise

    def close(self) -> None:
        """Stop listening; open connections end with the transport."""
        if self._ipv6 is not None:
            self._ipv6.close()
        self._forwarder.stop()


def check_port(port: int | None = None) -> None:
    """Raise the ForwardError of `Listener.open` where this port, or every one that is tried, is taken by now.

    That is known before the login, and a server would be started in vain. The port is not held: it is opened later.
    """
    _first_that_opens(port, _try_to_bind)


def _first_that_opens(port: int | None, open_one: Callable[[int], Opened]) -> Opened:
    ports = [port] if port is not None else list(range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TO_TRY))
    refused: OSError | None = None
    for candidate in ports:
        try:
            return open_one(candidate)
        except OSError as error:
            if error.errno not in TAKEN:
                raise _port_error(candidate, error) from None
            refused = error
    if port is not None:
        raise _port_error(port, refused)
    raise ForwardError(
        f"Every local port from {ports[0]} to {ports[-1]} is taken.", "Name a free one with --local-port."
    )


def _try_to_bind(port: int) -> None:
    """Bind both loopback addresses as the listeners do, and let go of them; raises OSError."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as sock:
                if _Server.allow_reuse_address:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
        except OSError as error:
            if family == socket.AF_INET or error.errno in TAKEN:
                raise  # a system without ::1 is no obstacle


def _open_ipv6(port: int, serve: ConnectionHandler) -> Ipv6Listener | None:
    """Listen on [::1] too; None where the system has no such address. Raises OSError where the port is taken there."""
    try:
        return Ipv6Listener(port, _handler(serve))
    except OSError as error:
        if error.errno in TAKEN:
            raise
        return None


def _port_error(port: int, error: OSError | None) -> ForwardError:
    why = error.strerror.lower() if error and error.strerror else "it is in use"
    return ForwardError(
        f"The local port {port} can't be opened: {why}.",
        "Name another one with --local-port, or leave it out.",
    )
