"""paramiko's transport, with what it lacks: Unix-socket channels, one service request for several logins, and speed."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import paramiko
from paramiko.common import MSG_SERVICE_ACCEPT, cMSG_SERVICE_REQUEST

# Without a handler of its own, the logging module would print paramiko's tracebacks to standard error.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

LEAST_WINDOW, MOST_WINDOW = 2 << 20, 16 << 20
LINE_RATE = 128 << 20
"""Bytes a second that one channel should carry, whatever the link's round trip: a gigabit line's, and a little more."""
READ_BYTES = 256 << 10


def window(round_trip: float) -> int:
    """Return how many bytes the host may send on a channel before it hears from us.

    paramiko's 2 MiB end near 40 MB/s over 50 ms. But no more than the link needs: OpenSSH reads ahead as much as the
    window allows and copies all of it for each 32 KB more. With 16 MiB on loopback, where 2 MiB take 0.2 s for 64 MiB,
    that took it up to 3.7 s.
    """
    return min(MOST_WINDOW, max(LEAST_WINDOW, int(round_trip * LINE_RATE)))


class Buffered:
    """A socket read in large pieces: paramiko reads twice for each packet, and lets other threads in between."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._room = memoryview(bytearray(READ_BYTES))
        self._start = self._end = 0

    def recv(self, size: int) -> bytes:
        """Return what was read already, up to the size; read when that is nothing."""
        if self._start == self._end:
            self._start, self._end = 0, self._sock.recv_into(self._room)
        stop = min(self._end, self._start + size)
        data = bytes(self._room[self._start : stop])
        self._start = stop
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class HostTransport(paramiko.Transport):
    """A transport that can open `direct-streamlocal@openssh.com` channels and log in with several methods in turn."""

    _asked_for_service = False

    def __init__(self, sock: socket.socket | paramiko.Channel) -> None:
        # Of this transport alone: when it runs through a jump host, the same thread writes to the outer one meanwhile.
        self._opening = threading.local()
        super().__init__(Buffered(sock) if isinstance(sock, socket.socket) else sock)  # type: ignore[arg-type]
        self.heard = time.monotonic()
        """When the last packet came, of whatever kind: behind a large upload, an answer can take long."""
        self.round_trip = 0.0
        """Seconds there and back, as the login's first request took them: the host has nothing to work out for it."""
        self._asked = self.heard
        read = self.packetizer.read_message

        def stamped() -> tuple[int, paramiko.Message]:
            kind, message = read()
            self.heard = time.monotonic()
            if kind == MSG_SERVICE_ACCEPT:
                self.round_trip = self.heard - self._asked
            return kind, message

        self.packetizer.read_message = stamped  # type: ignore[method-assign]

    def open_channel(
        self,
        kind: str,
        dest_addr: Any = None,
        src_addr: Any = None,
        window_size: int | None = None,
        max_packet_size: int | None = None,
        timeout: float | None = None,
    ) -> paramiko.Channel:
        """Open a channel, by default with a window of the link's size."""
        size = window_size or window(self.round_trip)
        return super().open_channel(kind, dest_addr, src_addr, size, max_packet_size, timeout)

    def open_streamlocal(self, path: str, timeout: float) -> paramiko.Channel:
        """Open a channel to the Unix socket at the path on the host."""
        self._opening.path = path
        try:
            return self.open_channel("direct-streamlocal@openssh.com", timeout=timeout)
        finally:
            self._opening.path = None

    def _send_user_message(self, data: paramiko.Message) -> None:
        # paramiko writes only the fields of the channel kinds it knows; OpenSSH's PROTOCOL file (section 2.4) has
        # these after them: the path, and two that are reserved.
        path = getattr(self._opening, "path", None)
        if path is not None:
            data.add_string(path)
            data.add_string("")
            data.add_int(0)
        super()._send_user_message(data)  # type: ignore[misc]

    def _send_message(self, data: paramiko.Message) -> None:
        # paramiko asks for the authentication service anew before each attempt. That costs a round trip, and some
        # servers (asyncssh) answer by disconnecting; RFC 4252 wants it once. Later requests are answered here.
        if data.asbytes()[:1] == cMSG_SERVICE_REQUEST:
            if self._asked_for_service and self.auth_handler is not None:
                accepted = paramiko.Message()
                accepted.add_string("ssh-userauth")
                accepted.rewind()
                self.auth_handler._parse_service_accept(accepted)  # type: ignore[attr-defined]
                return
            self._asked_for_service = True
            self._asked = time.monotonic()
        super()._send_message(data)  # type: ignore[misc]
