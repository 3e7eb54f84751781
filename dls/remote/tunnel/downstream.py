"""The client's side of the proxy: requests that arrive at the local port, and the responses to them."""

from __future__ import annotations

import contextlib
import mmap
import socket
import threading
import time
from collections.abc import Iterator
from typing import Protocol

import h11

from dls.contract import BODY_SECONDS, HEAD_SECONDS, MAX_HEAD_BYTES
from dls.remote.tunnel.body_memory import BodyMemory
from dls.remote.tunnel.headers import content_length, is_chunked

READ_SIZE = 256 * 1024
"""Maximum number of bytes read at a time. With sshtunnel's own 16 KB, downloads were 2.6 times slower."""
MAX_REPLAY_BODY = 1 << 30
"""Maximum size in bytes of a request body that is kept in memory to be sent again; larger ones are sent once."""
IDLE_SECONDS = 75.0
"""How long a connection may wait for its next request."""
LARGE_BODY = 1 << 20
"""Size in bytes from which a body is read on its own thread, into memory that is allocated page by page."""
LINGER_SECONDS = 1.0
"""How long a refused client may still send: unread bytes would reset the connection before it has the answer."""


class ClientDisconnected(Exception):
    """The client closed its connection, or was silent for too long."""


class ClientTooSlow(Exception):
    """The head of a request did not arrive in time."""


class HeadTooLarge(Exception):
    """The head of a request is larger than allowed."""


class Body(Protocol):
    """A request body: read from the client while it is sent on, and kept in case it has to be sent again."""

    @property
    def is_complete(self) -> bool:
        """Whether all of it has been read."""

    @property
    def is_replayable(self) -> bool:
        """Whether everything that was read is still in memory."""

    @property
    def size(self) -> int | None:
        """Number of bytes of the whole body; None where the client does not say it."""

    def whole(self) -> memoryview:
        """Return the whole body, which is of a known size and replayable, once it is read."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the body from its beginning, as it is to be sent; raises ClientDisconnected."""

    def release(self) -> None:
        """Give back the memory that was reserved for it, once nothing is sent again."""


class ClientConnection:
    """A client's connection to the local port."""

    def __init__(self, sock: socket.socket, memory: BodyMemory) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.memory = memory
        """What the bodies of all connections may take together."""
        self.address = sock.getsockname()
        """The address that the client has connected to: name and port."""
        self._sock = sock
        self._http = _new_http()
        self._excess = b""
        """Bytes received behind a sized body: the beginning of the next request."""
        self.is_idle = True
        """Whether no request has come yet that waits for its response."""

    def next_request(self) -> tuple[h11.Request, Body] | None:
        """Return the next request, its body still to be read; None at the end.

        Raises ClientDisconnected, ClientTooSlow, HeadTooLarge, and h11.RemoteProtocolError for what is no HTTP.
        """
        request = self._read_head()
        if not isinstance(request, h11.Request):
            return None
        headers = request.headers.raw_items()
        if sum(len(key) + len(value) + 4 for key, value in headers) + len(request.target) > MAX_HEAD_BYTES:
            raise HeadTooLarge
        self.is_idle = False
        self._sock.settimeout(BODY_SECONDS)  # also for the client to take the next part of an answer
        if is_chunked(headers):
            return request, ChunkedBody(self)
        # h11 parses only the head of a request with a sized body, because it copies every byte three times.
        size, (received, _) = content_length(headers) or 0, self._http.trailing_data
        self._excess = received[size:]
        return request, SizedBody(self, size, received[:size])

    def _read_head(self) -> object:
        self.is_idle = True
        deadline = None
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if deadline is None and self._http.trailing_data[0]:
                deadline = time.monotonic() + HEAD_SECONDS
            self._sock.settimeout(IDLE_SECONDS if deadline is None else max(0.001, deadline - time.monotonic()))
            try:
                self._http.receive_data(self._sock.recv(READ_SIZE))
            except TimeoutError:
                if deadline is None:
                    raise ClientDisconnected from None
                raise ClientTooSlow from None
            except OSError:
                raise ClientDisconnected from None
        return event

    def next_event(self) -> object:
        """Return the next event of h11; raises ClientDisconnected."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            try:
                self._http.receive_data(self._sock.recv(READ_SIZE))
            except OSError:
                raise ClientDisconnected from None
        return event

    def read_into(self, buffer: memoryview) -> int:
        """Read a part of a body into the buffer and return its size; raises ClientDisconnected."""
        try:
            count = self._sock.recv_into(buffer)
        except OSError:
            raise ClientDisconnected from None
        if count == 0:
            raise ClientDisconnected
        return count

    def send(self, *events: h11.Event) -> None:
        """Send parts of a response; raises ClientDisconnected."""
        data = b"".join(self._http.send(event) or b"" for event in events)
        try:
            self._sock.sendall(data)
        except OSError:
            raise ClientDisconnected from None

    def send_response(self, response: h11.Response, body: bytes) -> None:
        """Send a complete response; raises ClientDisconnected."""
        self.send(response, h11.Data(data=body), h11.EndOfMessage())

    def refuse(self, response: h11.Response, body: bytes) -> None:
        """Send a response to a request that is not read to its end, and wait until the client has it."""
        if not self.can_respond:
            return
        with contextlib.suppress(ClientDisconnected, OSError):
            self._sock.settimeout(LINGER_SECONDS)
            self.send_response(response, body)
        self.linger()

    def linger(self) -> None:
        """End the answers, and take what the client still sends until it has read them, for a while."""
        with contextlib.suppress(OSError):
            self._sock.settimeout(LINGER_SECONDS)
            self._sock.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + LINGER_SECONDS
            while self._sock.recv(READ_SIZE) and (left := deadline - time.monotonic()) > 0:
                self._sock.settimeout(left)

    def disconnect(self) -> None:
        """End the connection, from another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def send_continue(self) -> None:
        """Send `100 Continue` if the client waits for it: the server's own would cost a round trip of the link."""
        if self._http.they_are_waiting_for_100_continue:
            self.send(h11.InformationalResponse(status_code=100, headers=[]))

    def stop_reading(self) -> None:
        """Shut down the receiving side, which ends a thread that still reads a body."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    @property
    def is_gone(self) -> bool:
        """Whether the client has closed the connection, or at least its side of it, and all that it sent is read."""
        timeout = self._sock.gettimeout()
        self._sock.settimeout(0)  # MSG_DONTWAIT does not exist on Windows
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._sock.settimeout(timeout)

    @property
    def can_respond(self) -> bool:
        """Whether no response has been started."""
        return self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def keep_alive(self, body: Body) -> bool:
        """Prepare for another request after the one with this body; False when the connection has to end."""
        if self._http.our_state is not h11.DONE or not body.is_complete:
            return False
        excess = self._excess if isinstance(body, SizedBody) else self._http.trailing_data[0]
        self._http = _new_http()
        if excess:
            self._http.receive_data(excess)
        return True


class SizedBody:
    """A body whose length is known in advance, as nearly all are: each byte is read directly into the buffer."""

    def __init__(self, client: ClientConnection, size: int, received: bytes) -> None:
        self._client = client
        self.size: int | None = size
        self._size = size
        self._received = len(received)
        self.is_replayable = size <= MAX_REPLAY_BODY and client.memory.reserve(size)
        self._buffer = memoryview(_allocate(size if self.is_replayable else READ_SIZE))
        self._buffer[: len(received)] = received
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None
        self._is_disconnected = False

    @property
    def is_complete(self) -> bool:
        """Whether all of it has been read."""
        return self._received == self._size

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the body from its beginning; raises ClientDisconnected."""
        if self._reader is None and not self.is_complete:
            self._client.send_continue()
            if self._size >= LARGE_BODY and self.is_replayable:
                # Reading from the client and encrypting for the host each keep one core busy.
                self._reader = threading.Thread(target=self._read_all, name="dls-body", daemon=True)
                self._reader.start()
        yield from self._replay() if self.is_replayable else self._stream()

    def whole(self) -> memoryview:
        """Return the whole body once it is read; raises ClientDisconnected."""
        for _ in self.chunks():
            pass
        return self._buffer.toreadonly()

    def release(self) -> None:
        """Give back the memory that was reserved for it."""
        if self.is_replayable:
            self._client.memory.release(self._size)

    def _replay(self) -> Iterator[memoryview]:
        start = 0
        while start < self._size:
            if self._reader is None and start == self._received:
                self._read(start)
            with self._changed:
                while (stop := self._received) == start:
                    if self._is_disconnected:
                        raise ClientDisconnected
                    self._changed.wait()
            yield self._buffer[start:stop]
            start = stop

    def _stream(self) -> Iterator[memoryview]:
        yield self._buffer[: self._received]
        while not self.is_complete:
            yield self._buffer[: self._read(0)]

    def _read_all(self) -> None:
        try:
            while not self.is_complete:
                self._read(self._received)
        except ClientDisconnected:
            with self._changed:
                self._is_disconnected = True
                self._changed.notify()

    def _read(self, start: int) -> int:
        count = self._client.read_into(self._buffer[start : start + min(READ_SIZE, self._size - self._received)])
        with self._changed:
            self._received += count
            self._changed.notify()
        return count


class ChunkedBody:
    """A body of unknown length, which is received and sent in chunks."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._replayed: list[bytes] = []
        self.size: int | None = None
        self._size = 0
        self.is_complete = False
        self.is_replayable = True

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Yield the body from its beginning, encoded as in RFC 9112, section 7.1; raises ClientDisconnected."""
        yield from self._replayed
        while not self.is_complete:
            self._client.send_continue()
            chunk = self._read()
            self._keep(chunk)
            yield chunk

    def _keep(self, chunk: bytes) -> None:
        if not self.is_replayable:
            return
        if self._size + len(chunk) <= MAX_REPLAY_BODY and self._client.memory.reserve(len(chunk)):
            self._size += len(chunk)
            self._replayed.append(chunk)
        else:
            self.is_replayable = False
            self._replayed.clear()
            self.release()

    def whole(self) -> memoryview:
        """Raise an error: a body of unknown length is sent as it comes."""
        raise NotImplementedError

    def release(self) -> None:
        """Give back the memory that was reserved for what was kept."""
        self._client.memory.release(self._size)
        self._size = 0

    def _read(self) -> bytes:
        event = self._client.next_event()
        if isinstance(event, h11.EndOfMessage):
            self.is_complete = True
            return b"0\r\n\r\n"
        if isinstance(event, h11.Data):
            return b"%x\r\n%b\r\n" % (len(event.data), event.data)
        raise ClientDisconnected


def _new_http() -> h11.Connection:
    return h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)


def _allocate(size: int) -> bytearray | mmap.mmap:
    """Return a writable buffer; a large one takes memory only as it is filled, while a bytearray is zeroed at once."""
    if size < LARGE_BODY or not hasattr(mmap, "MAP_PRIVATE"):
        return bytearray(size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
