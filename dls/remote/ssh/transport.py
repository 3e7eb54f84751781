"""paramiko's transport, with Unix-socket channels, more speed, and what the host said that an error should tell."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from typing import Any

import paramiko
from paramiko.common import MSG_SERVICE_ACCEPT, cMSG_SERVICE_REQUEST
from paramiko.ssh_exception import IncompatiblePeer

# The logging module prints paramiko's tracebacks to standard error as long as its logger has no handler.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

MIN_WINDOW = 2 << 20
"""Smallest channel window in bytes: paramiko's own default."""
MAX_WINDOW = 16 << 20
"""Largest channel window in bytes."""
LINE_RATE = 128 << 20
"""Bytes per second that one channel should carry at any round-trip time: slightly more than a gigabit line."""
FIRST_OF_CONNECTION = 80
"""Smallest number of a message of the connection protocol (RFC 4250, section 4.1.2)."""
READ_BYTES = 256 << 10
"""Bytes that one read of the socket may return."""


def optimal_window(round_trip: float) -> int:
    """Return the channel window in bytes for a round-trip time in seconds.

    paramiko's 2 MiB limit a channel to about 40 MB/s over 50 ms. A window larger than needed is slow, too: OpenSSH
    reads ahead as much as the window allows and copies all of it for each further 32 KB. 64 MiB over loopback took
    0.2 s with a window of 2 MiB, and up to 3.7 s with 16 MiB.
    """
    return min(MAX_WINDOW, max(MIN_WINDOW, int(round_trip * LINE_RATE)))


class NoGreeting(paramiko.SSHException):
    """No SSH server answered: the connection was closed before the keys were exchanged, or no greeting came in time."""

    def __init__(self, lines: list[str], cause: BaseException) -> None:
        super().__init__(str(cause))
        self.lines = list(lines)
        """What came in place of the greeting; the greeting itself where the connection was closed after it."""
        self.is_late = isinstance(cause, TimeoutError)


class NothingInCommon(IncompatiblePeer):
    """We and the host have no algorithm in common for one of the purposes."""

    def __init__(self, message: str, offer: dict[str, list[str]]) -> None:
        super().__init__(message)
        self.offer = offer
        """The names that the host offers for each purpose, by paramiko's name for it."""


class BufferedSocket:
    """A socket read in large pieces: paramiko reads twice per packet, and each read lets other threads run."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._start = self._end = 0

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes from the buffer; read from the socket only when the buffer is empty."""
        if self._start == self._end:
            self._start, self._end = 0, self._sock.recv_into(self._buffer)
        stop = min(self._end, self._start + size)
        data = bytes(self._buffer[self._start : stop])
        self._start = stop
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class HostTransport(paramiko.Transport):
    """A transport that opens `direct-streamlocal@openssh.com` channels and remembers what errors and agents need."""

    def __init__(self, sock: socket.socket | paramiko.Channel) -> None:
        # One for each transport: a transport through a jump host writes to the outer transport in the same thread.
        self._streamlocal = threading.local()
        self._postponed: list[paramiko.Message] = []
        super().__init__(BufferedSocket(sock) if isinstance(sock, socket.socket) else sock)  # type: ignore[arg-type]
        self.last_heard = time.monotonic()
        """When the last packet of any kind came, by `time.monotonic`; behind a large upload an answer can take long."""
        self.last_request = 0.0
        """When a part of a request was sent last, by `time.monotonic`; what can wait gives way to requests."""
        self.round_trip = 0.0
        """Round-trip time in seconds, measured at the login's service request, which the host answers at once."""
        self._requested_at = self.last_heard
        self.greeting: list[str] = []
        """The lines that came before the key exchange; the last one is an SSH server's own (RFC 4253, section 4.2)."""
        self.disconnect_reason = ""
        """What the host gave as its reason for ending the connection."""
        self.host_proof: tuple[bytes, bytes] | None = None
        """The host key, and its signature of the first key exchange, whose hash is the session's identifier."""
        read_line = self.packetizer.readline

        def read_and_keep_line(timeout: float) -> str:
            line = read_line(timeout)
            self.greeting.append(line)
            return line

        self.packetizer.readline = read_and_keep_line  # type: ignore[method-assign]
        read_message = self.packetizer.read_message

        def read_and_time() -> tuple[int, paramiko.Message]:
            kind, message = read_message()
            self.last_heard = time.monotonic()
            if kind == MSG_SERVICE_ACCEPT:
                self.round_trip = self.last_heard - self._requested_at
            return kind, message

        self.packetizer.read_message = read_and_time  # type: ignore[method-assign]

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """The host key algorithms to propose, as they were set: paramiko adds those of certificates at the end."""
        return tuple(self._filter_algorithm("keys"))  # type: ignore[attr-defined]

    @property
    def signature_algorithms(self) -> list[str]:
        """The algorithms that the host announced for the user's keys (RFC 8308); an empty list where it did not."""
        announced: bytes = self.server_extensions.get("server-sig-algs", b"")  # type: ignore[attr-defined]
        return announced.decode(errors="replace").split(",") if announced else []

    def open_channel(
        self,
        kind: str,
        dest_addr: Any = None,
        src_addr: Any = None,
        window_size: int | None = None,
        max_packet_size: int | None = None,
        timeout: float | None = None,
    ) -> paramiko.Channel:
        """Open a channel; without a window size it gets the one that the connection's round-trip time needs."""
        size = window_size or optimal_window(self.round_trip)
        return super().open_channel(kind, dest_addr, src_addr, size, max_packet_size, timeout)

    def open_streamlocal(self, path: str, timeout: float) -> paramiko.Channel:
        """Open a channel to the Unix socket at the path on the host."""
        self._streamlocal.path = path
        try:
            return self.open_channel("direct-streamlocal@openssh.com", timeout=timeout)
        finally:
            self._streamlocal.path = None

    def _send_user_message(self, data: paramiko.Message) -> None:
        if self._must_wait(data):
            self._postponed.append(data)
            return
        # paramiko writes only the fields of the channel types it knows. OpenSSH's PROTOCOL file (section 2.4) defines
        # the further fields: the path, and two that are reserved.
        path = getattr(self._streamlocal, "path", None)
        if path is not None:
            data.add_string(path)
            data.add_string("")
            data.add_int(0)
        super()._send_user_message(data)  # type: ignore[misc]

    def _must_wait(self, data: paramiko.Message) -> bool:
        """Return whether the thread that reads has to send a message later: after a key exchange that has begun.

        No message of the connection protocol may be sent in between (RFC 4253, section 7.1). paramiko lets every thread
        wait, and the one that reads then waits for what it would have to read itself: after 30 s, with a channel that
        closes at such a moment, the connection ends. The first key exchange after the login comes with 512 MB.
        """
        is_reading = threading.current_thread() is self
        return is_reading and not self.clear_to_send.is_set() and data.asbytes()[0] >= FIRST_OF_CONNECTION

    def _parse_newkeys(self, message: paramiko.Message) -> None:
        super()._parse_newkeys(message)  # type: ignore[misc]
        postponed, self._postponed = self._postponed, []
        for data in postponed:
            self._send_message(data)

    def _send_message(self, data: paramiko.Message) -> None:
        if self._must_wait(data):
            self._postponed.append(data)
            return
        if data.asbytes()[:1] == cMSG_SERVICE_REQUEST:
            self._requested_at = time.monotonic()
        super()._send_message(data)  # type: ignore[misc]

    def start_client(self, event: threading.Event | None = None, timeout: float | None = None) -> None:
        """Exchange the keys; raises NoGreeting where the host closes the connection before that."""
        try:
            super().start_client(event, timeout)
        except EOFError as error:
            raise NoGreeting(self.greeting, error) from error

    def run(self) -> None:
        """Read what comes, until the connection ends."""
        # Through a jump host, what carries this connection may have been closed before its last words could be sent.
        with contextlib.suppress(EOFError, OSError):
            super().run()

    def _check_banner(self) -> None:
        try:
            super()._check_banner()  # type: ignore[misc]
        except paramiko.SSHException as error:
            if isinstance(error.__context__, (EOFError, OSError)):
                raise NoGreeting(self.greeting, error.__context__) from error
            raise

    def _parse_kex_init(self, message: paramiko.Message) -> None:
        position = message.packet.tell()
        try:
            super()._parse_kex_init(message)  # type: ignore[misc]
        except IncompatiblePeer as error:
            message.packet.seek(position)
            raise NothingInCommon(str(error), self._really_parse_kex_init(message)) from error  # type: ignore[attr-defined]

    def _verify_key(self, host_key: bytes, signature: bytes) -> None:
        super()._verify_key(host_key, signature)  # type: ignore[misc]
        self.host_proof = self.host_proof or (host_key, signature)

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.disconnect_reason = message.get_binary().decode(errors="replace").strip()
