"""The local port and the channels behind it: sshtunnel's listener on our own transport."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from typing import Any

import paramiko
import sshtunnel

from dls.errors import DlsError, ForwardError

DEFAULT_PORT = 8911
PORTS_TO_TRY = 20
"""How many ports after the default one are tried before giving up."""
CHUNK = 256 * 1024
"""Bytes read at a time. With sshtunnel's own 16 KB, downloads were 2.6 times slower."""
TAKEN = (errno.EADDRINUSE, errno.EACCES, 10048, 10013)
"""Port in use or forbidden; the last two are what Windows says."""

OpenChannel = Callable[[], paramiko.Channel]

_log = logging.getLogger("dls.forward")
_log.addHandler(logging.NullHandler())


def _pump(read: Callable[[int], bytes], write: Callable[[bytes], object], end: Callable[[], object]) -> None:
    """Carry bytes one way until they end, then say so to the other side."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        while data := read(CHUNK):
            write(data)
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        end()


class _Handler(socketserver.BaseRequestHandler):
    """One connection to the local port: a channel, and a thread a direction."""

    open_channel: OpenChannel
    remote_address = ("127.0.0.1", 1)
    """sshtunnel asks for one; where the channel really leads is the business of `open_channel`."""

    def handle(self) -> None:
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            channel = self.open_channel()
        except DlsError as error:
            _log.warning("no channel: %s", error.message)
            return  # the socket is closed: the client sees a failed request, not one that hangs
        with contextlib.closing(channel):
            back = threading.Thread(
                target=_pump,
                args=(channel.recv, self.request.sendall, lambda: self.request.shutdown(socket.SHUT_WR)),
                daemon=True,
            )
            back.start()
            _pump(self.request.recv, channel.sendall, channel.shutdown_write)
            back.join()


class _Server(sshtunnel._ThreadingForwardServer):  # type: ignore[misc]
    """sshtunnel's threaded listener; on Windows, address reuse would let two programs share one port."""

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
    """sshtunnel without its own login: by itself it checks no host key and logs in once more."""

    def __init__(self, transport: paramiko.Transport, open_channel: OpenChannel, address: tuple[str, int]) -> None:
        self._verified = transport
        self._open_channel = open_channel
        self.bind_errors: list[OSError] = []
        super().__init__(
            ssh_address_or_host=("localhost", 22),
            ssh_config_file=None,
            ssh_username="-",
            ssh_password="-",  # noqa: S106 - sshtunnel refuses to start without one; it is sent nowhere
            allow_agent=False,
            host_pkey_directories=[],
            local_bind_address=address,
            remote_bind_address=_Handler.remote_address,
            logger=_log,
            mute_exceptions=False,
        )

    def _connect_to_gateway(self) -> None:
        self._transport = self._verified

    def _make_ssh_forward_handler_class(self, remote_address_: tuple[str, int]) -> type[_Handler]:
        return type("Handler", (_Handler,), {"open_channel": staticmethod(self._open_channel)})

    def _make_ssh_forward_server_class(self, remote_address_: tuple[str, int]) -> type[_Server]:
        return type("Server", (_Server,), {"bind_errors": self.bind_errors, "daemon_threads": True})

    def _stop_transport(self, force: bool = False) -> None:
        # The transport is not ours to close: the connection that made it does.
        for server in self._server_list:
            server.shutdown()
            server.server_close()
        self.is_alive = False
        self.__dict__.pop("_transport", None)  # sshtunnel closes what it still holds when it is collected


class Forward:
    """A local port that leads to the server on the host."""

    def __init__(self, forwarder: _Forwarder) -> None:
        self._forwarder = forwarder
        self.port: int = forwarder.local_bind_port

    @classmethod
    def open(cls, transport: paramiko.Transport, open_channel: OpenChannel, port: int | None = None) -> Forward:
        """Listen on 127.0.0.1, on the port asked for or on the first free one from 8911 on.

        Raises ForwardError when the port asked for, or every port tried, is taken or forbidden.
        """
        ports = [port] if port is not None else list(range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TO_TRY))
        for candidate in ports:
            forwarder = _Forwarder(transport, open_channel, ("127.0.0.1", candidate))
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
        """Stop listening; connections that are open end with the transport."""
        self._forwarder.stop()


def _port_error(port: int, error: OSError | None) -> ForwardError:
    why = error.strerror.lower() if error and error.strerror else "it is in use"
    return ForwardError(
        f"The local port {port} can't be opened: {why}.",
        "Name another one with --local-port, or leave it out.",
    )
