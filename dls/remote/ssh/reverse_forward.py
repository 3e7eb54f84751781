"""A port on the host that leads back over the SSH connection (RFC 4254, section 7.1)."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import paramiko

from dls.remote.ssh.bulk_channel import BulkChannel
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.exceptions import SSH_EXCEPTIONS

LOOPBACK = "127.0.0.1"
ASK_SECONDS = 15.0
"""Seconds that the host may take to answer: some servers never answer a request that they don't know."""
CLOSE_SECONDS = 5.0
"""Seconds that the host may take to close the port; it closes it with the connection in any case."""
UNSENT_LIMIT = 64 << 10
"""Bytes that the kernel may hold unsent: what else is sent over the connection waits behind them."""
NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}
"""Number of the option TCP_NOTSENT_LOWAT, by system; Windows has none."""


class ReverseForward:
    """A port on the host's loopback address, whose connections arrive as channels."""

    def __init__(self, connection: Connection, port: int) -> None:
        self._connection = connection
        self.port = port

    @classmethod
    def open(
        cls, connection: Connection, accept: Callable[[BulkChannel], None], *, seconds: float = ASK_SECONDS
    ) -> ReverseForward | None:
        """Ask the host for a port; None where it gives none within so many seconds.

        `accept` is called with each channel, in the thread that reads the connection: it has to return at once.
        """
        ports: list[int] = []
        given_up = threading.Event()

        def receive(channel: paramiko.Channel, _origin: object, _server: object) -> None:
            accept(BulkChannel(channel))

        def ask() -> None:
            with contextlib.suppress(*SSH_EXCEPTIONS):
                ports.append(connection.transport.request_port_forward(LOOPBACK, 0, receive))
                if given_up.is_set():  # nobody would ever close it
                    _cancel(connection, ports[0])

        _run(ask, seconds)
        if not ports:
            given_up.set()
            return None
        _limit_unsent(connection, UNSENT_LIMIT)
        return cls(connection, ports[0])

    def close(self) -> None:
        """Let the host close the port; does nothing where the connection has ended.

        Channels that are opened meanwhile are still passed to `accept`.
        """

        def ask() -> None:
            with contextlib.suppress(*SSH_EXCEPTIONS):
                _cancel(self._connection, self.port)

        _limit_unsent(self._connection, 0)
        _run(ask, CLOSE_SECONDS)


def _cancel(connection: Connection, port: int) -> None:
    """Let the host close a port, and wait for its answer.

    paramiko's own `cancel_port_forward` forgets who takes the channels before the host has answered, and then a channel
    that comes in between ends the whole connection.
    """
    connection.transport.global_request("cancel-tcpip-forward", (LOOPBACK, port), wait=True)


def _run(ask: Callable[[], None], seconds: float) -> None:
    thread = threading.Thread(target=ask, name="dls-reverse-forward", daemon=True)
    thread.start()
    thread.join(seconds)


def _limit_unsent(carrier: Any, limit: int) -> None:
    """Limit what the sockets of a connection, and of those that carry it, hold unsent; 0 for the system's own limit."""
    option = NOTSENT_LOWAT.get(sys.platform)
    transport = getattr(carrier, "transport", None)
    if option is None or transport is None:
        return
    with contextlib.suppress(OSError, AttributeError):
        transport.sock.setsockopt(socket.IPPROTO_TCP, option, limit)
    for below in carrier.carriers:
        _limit_unsent(below, limit)
