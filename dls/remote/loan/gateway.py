"""The proxy of a loan: its connections are channels that come back over the SSH connection, and it listens nowhere."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from dls.remote.loan.connect_request import ESTABLISHED, ConnectRequest, Refused, RequestReader
from dls.remote.loan.names import Names
from dls.remote.loan.traffic import Traffic
from dls.remote.loan.way_out import NotPublic, Unreachable, WayOut
from dls.remote.ssh.bulk_channel import BulkChannel
from dls.remote.ssh.channel import ChannelError

PIECE = 32 << 10
"""Bytes that are sent at a time: what one SSH packet of OpenSSH's holds."""
HEAD_SECONDS = 20.0
"""Seconds that a client may take to send the whole of its request."""
MAX_CONNECTIONS = 256
"""Connections that may be open at once: uv opens 50, the hub's client some 10."""
MAX_ASKING = 128
"""Connections, beside those, whose request has not come yet: every user of the host can make some."""
GIVE_WAY_SECONDS = 0.003
"""Seconds for which a loan gives way to a request over the same connection; one of its packets goes out in each."""
FASTEST = 80 << 20
"""Bytes per second that a loan takes of the connection: at more, encrypting them leaves a busy computer no time."""
BURST_SECONDS = 0.001
"""Seconds by which a loan may be ahead of that rate: timers are coarser than the packets of such a line."""
ENDS = (OSError, EOFError, ChannelError)
"""What a read or a write raises when one of the two sides has ended."""


class Gateway:
    """Serves the connections of one loan, two threads each, until it is closed."""

    def __init__(self, names: Names, way_out: WayOut, secret: str, *, head_seconds: float = HEAD_SECONDS) -> None:
        self._head_seconds = head_seconds
        self.traffic = Traffic()
        self._names = names
        self._way_out = way_out
        self._secret = secret
        self._turn = threading.Lock()
        self._due = 0.0
        """When the next packet may be sent, by `time.perf_counter`: the other clock of Windows has ticks of 16 ms."""
        self._open: set[BulkChannel | socket.socket] = set()
        self._asking: dict[BulkChannel, None] = {}
        """The channels whose request has not come yet, the oldest first."""
        self._lock = threading.Lock()
        self._is_closed = False

    def accept(self, channel: BulkChannel) -> None:
        """Serve a channel that the host has opened, in a thread of its own.

        Of too many that say nothing, the oldest is closed: whoever has the secret sends the request at once.
        """
        with self._lock:
            self._asking[channel] = None
            oldest = next(iter(self._asking)) if len(self._asking) > MAX_ASKING else None
            if oldest is not None:
                del self._asking[oldest]
        if oldest is not None:
            _end(oldest)
        threading.Thread(target=self._serve, args=(channel,), name="dls-loan", daemon=True).start()

    def close(self) -> None:
        """End every connection, and serve no further one."""
        with self._lock:
            self._is_closed = True
            open_ones = list(self._open)
        for each in open_ones:
            _end(each)

    def _keep(self, each: BulkChannel | socket.socket) -> None:
        """Remember what `close` has to end; raises EOFError where it has run."""
        with self._lock:
            if not self._is_closed:
                self._open.add(each)
                return
        _end(each)
        raise EOFError

    def _serve(self, channel: BulkChannel) -> None:
        self.traffic.opened(1)
        ends: list[BulkChannel | socket.socket] = [channel]
        try:
            with contextlib.suppress(*ENDS):
                self._keep(channel)
                self._answer(channel, ends)
        finally:
            self.traffic.opened(-1)
            with self._lock:
                self._open.difference_update(ends)
            for each in ends:
                _end(each)

    def _answer(self, channel: BulkChannel, ends: list[BulkChannel | socket.socket]) -> None:
        try:
            request = self._read(channel)
            if self._count_granted() > MAX_CONNECTIONS:
                raise Refused(503, "Too many connections are open.")
            upstream, early = self._open_upstream(request)
        except Refused as refusal:
            if refusal.asked:
                self.traffic.refused(refusal.asked)
            channel.settimeout(self._head_seconds)
            channel.sendall(refusal.answer())
            channel.shutdown_write()
            return
        ends.append(upstream)
        self._keep(upstream)
        channel.settimeout(None)
        channel.sendall(ESTABLISHED + early)
        upstream.sendall(request.early)
        back = threading.Thread(target=self._copy_back, args=(channel, upstream, request), daemon=True)
        back.start()
        self._copy_there(upstream, channel, str(request.name))
        back.join()

    def _count_granted(self) -> int:
        with self._lock:
            return self.traffic.connections - len(self._asking)

    def _read(self, channel: BulkChannel) -> ConnectRequest:
        deadline = time.monotonic() + self._head_seconds
        reader = RequestReader(self._names, self._secret)
        try:
            while True:
                channel.settimeout(max(0.0, deadline - time.monotonic()))
                data = channel.recv(4096)
                if not data:
                    raise EOFError
                if request := reader.feed(data):
                    return request
        except ChannelError as error:
            if isinstance(error.__cause__, TimeoutError):
                raise Refused(408, "The request did not come in time.") from None
            raise
        finally:
            with self._lock:
                self._asking.pop(channel, None)

    def _open_upstream(self, request: ConnectRequest) -> tuple[socket.socket, bytes]:
        try:
            return self._way_out.open(request.host, request.port, may_be_private=request.name.is_own)
        except NotPublic as error:
            self.traffic.unreachable(request.host, str(error))
            raise Refused(403, str(error), f"{request.host}:{request.port}") from error
        except Unreachable as error:
            self.traffic.unreachable(request.host, str(error))
            raise Refused(502, str(error)) from error

    def _copy_there(self, upstream: socket.socket, channel: BulkChannel, name: str) -> None:
        """Copy what comes from the name to the host, until its end."""
        buffer = memoryview(bytearray(PIECE))
        while size := upstream.recv_into(buffer):
            start = 0
            while start < size:
                channel.wait_until_taken()
                # One packet of a loan at a time waits for the connection: what else is sent over it waits for one
                # packet at most, and not for one of each download.
                with self._turn:
                    self._give_way(channel)
                    sent = channel.send(buffer[start:size])
                    self._due = max(self._due, time.perf_counter() - BURST_SECONDS) + sent / FASTEST
                    start += sent
            self.traffic.moved(name, size)
        channel.shutdown_write()

    def _give_way(self, channel: BulkChannel) -> None:
        """Wait while requests are sent over the same connection, and until this loan has its turn again."""
        requests = min(channel.last_request + GIVE_WAY_SECONDS - time.monotonic(), GIVE_WAY_SECONDS)
        wait = max(requests, self._due - time.perf_counter())
        if wait > 0:
            time.sleep(wait)

    def _copy_back(self, channel: BulkChannel, upstream: socket.socket, request: ConnectRequest) -> None:
        """Copy what the host sends to the name, until its end."""
        with contextlib.suppress(*ENDS):
            while data := channel.recv(PIECE):
                upstream.sendall(data)
                self.traffic.moved(str(request.name))
        with contextlib.suppress(OSError):
            # A channel that was closed altogether ends the other direction too.
            upstream.shutdown(socket.SHUT_RDWR if channel.is_closed else socket.SHUT_WR)


def _end(each: BulkChannel | socket.socket) -> None:
    with contextlib.suppress(OSError):
        if isinstance(each, socket.socket):
            each.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        each.close()
