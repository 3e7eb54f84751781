"""The local port: sshtunnel's listener, which stays open while the link behind it is lost and restored."""

from __future__ import annotations

import errno
import logging
import socket
import socketserver
import sys
from collections.abc import Callable
from typing import Any

import paramiko
import sshtunnel

from dls.contract import DEFAULT_PORT
from dls.errors import ForwardError

PORTS_TO_TRY = 20
"""Number of ports that are tried, from the default one on."""
TAKEN = (errno.EADDRINUSE, errno.EACCES, 10048, 10013)
"""Error numbers of a port that is in use or forbidden; the last two are those of Windows."""

ConnectionHandler = Callable[[socket.socket], None]
"""A function that answers one connection to the local port."""

_log = logging.getLogger("dls.forward")
_log.addHandler(logging.NullHandler())


class _Handler(socketserver.BaseRequestHandler):
    """One connection to the local port; sshtunnel runs each in its own thread."""

    serve: ConnectionHandler
    remote_address = ("127.0.0.1", 1)
    """An address that sshtunnel wants to have; `serve` decides where requests go."""

    def handle(self) -> None:
        self.serve(self.request)


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
        return type("Handler", (_Handler,), {"serve": staticmethod(self._serve)})

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
    """A local port that leads to the server on the host."""

    def __init__(self, forwarder: _Forwarder) -> None:
        self._forwarder = forwarder
        self.port: int = forwarder.local_bind_port

    @classmethod
    def open(cls, transport: paramiko.Transport, serve: ConnectionHandler, port: int | None = None) -> Listener:
        """Listen on 127.0.0.1, on this port or else on the first free one from 8911 on.

        Raises ForwardError when the port, or every port that is tried, is taken or forbidden.
        """
        ports = [port] if port is not None else list(range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TO_TRY))
        for candidate in ports:
            forwarder = _Forwarder(transport, serve, ("127.0.0.1", candidate))
            try:
                forwarder.start()
            except sshtunnel.BaseSSHTunnelForwarderError:
                forwarder.stop()
                if forwarder.bind_errors and forwarder.bind_errors[0].errno not in TAKEN:
                    raise _port_error(candidate, forwarder.bind_errors[0]) from None
                refused = forwarder.bind_errors
                continue
            return cls(forwarder)
        if port is not None:
            raise _port_error(port, refused[0] if refused else None)
        raise ForwardError(
            f"Every local port from {ports[0]} to {ports[-1]} is taken.", "Name a free one with --local-port."
        )

    def close(self) -> None:
        """Stop listening; open connections end with the transport."""
        self._forwarder.stop()


def _port_error(port: int, error: OSError | None) -> ForwardError:
    why = error.strerror.lower() if error and error.strerror else "it is in use"
    return ForwardError(
        f"The local port {port} can't be opened: {why}.",
        "Name another one with --local-port, or leave it out.",
    )
