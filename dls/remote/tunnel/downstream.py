"""The client's side of the relay: requests as they come to the local port, and answers on their way back."""

from __future__ import annotations

import contextlib
import mmap
import socket
import threading
from collections.abc import Iterator
from typing import Protocol

import h11

from dls.remote.tunnel import headers as http_headers

CHUNK = 256 * 1024
"""Bytes read at a time. With sshtunnel's own 16 KB, downloads were 2.6 times slower."""
MAX_REPLAY_BODY = 1 << 30
"""Bytes of a request's body that are held, to be sent again; larger ones are sent once."""
LARGE = 1 << 20
"""Bytes of a body from which it is read on a thread of its own, into memory that is taken page by page."""


class ClientDisconnected(Exception):
    """The client went away."""


class Body(Protocol):
    """A request's body, read from the client as it is sent on, and held in case it has to be sent again."""

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been read."""

    @property
    def can_repeat(self) -> bool:
        """Whether all of it that was read is still there."""

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield it from its beginning, as it is to be sent; raises Gone."""


class ClientConnection:
    """The client's connection to the local port."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._talk = h11.Connection(h11.SERVER)
        self._after = b""
        """What came after the body: the next request's beginning."""

    def next_request(self) -> tuple[h11.Request, Body] | None:
        """Return what the client asks next, its body still to be read; None when it has no more. Raises Gone."""
        request = self.next_event()
        if not isinstance(request, h11.Request):
            return None
        headers = request.headers.raw_items()
        if http_headers.is_chunked(headers):
            return request, Chunked(self)
        # h11 sees no more than the head of these: each byte that goes through it is copied three times.
        size, (come, _) = http_headers.size(headers) or 0, self._talk.trailing_data
        self._after = come[size:]
        return request, Sized(self, size, come[:size])

    def next_event(self) -> object:
        """Return what the client says next; raises Gone when it says no more."""
        while (event := self._talk.next_event()) is h11.NEED_DATA:
            try:
                self._talk.receive_data(self._sock.recv(CHUNK))
            except OSError:
                raise ClientDisconnected from None
        return event

    def read_into(self, room: memoryview) -> int:
        """Read what has come of a body, as much as there is room for; raises Gone when nothing comes any more."""
        try:
            count = self._sock.recv_into(room)
        except OSError:
            raise ClientDisconnected from None
        if count == 0:
            raise ClientDisconnected
        return count

    def send(self, *events: h11.Event) -> None:
        """Send parts of an answer; raises Gone when nobody takes them."""
        data = b"".join(self._talk.send(event) or b"" for event in events)
        try:
            self._sock.sendall(data)
        except OSError:
            raise ClientDisconnected from None

    def read_no_more(self) -> None:
        """Let nobody wait for what is still to come of a body."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RD)

    def send_continue(self) -> None:
        """Tell a client that waits for it to send the body: the answer need not come from far away."""
        if self._talk.they_are_waiting_for_100_continue:
            self.send(h11.InformationalResponse(status_code=100, headers=[]))

    def answer(self, response: h11.Response, body: bytes) -> None:
        """Send a whole answer."""
        self.send(response, h11.Data(data=body), h11.EndOfMessage())

    @property
    def can_be_answered(self) -> bool:
        """Whether no answer has begun."""
        return self._talk.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    def keep_alive(self, body: Body) -> bool:
        """Whether another request may come on the connection, after one with that body."""
        if self._talk.our_state is not h11.DONE or not body.is_whole:
            return False
        rest = self._after if isinstance(body, Sized) else self._talk.trailing_data[0]
        self._talk = h11.Connection(h11.SERVER)
        if rest:
            self._talk.receive_data(rest)
        return True


class Sized:
    """A body whose length is known beforehand, as nearly all are: each byte is read to the place where it is held."""

    def __init__(self, near: ClientConnection, size: int, come: bytes) -> None:
        self._near = near
        self._size = size
        self._come = len(come)
        self.can_repeat = size <= MAX_REPLAY_BODY
        self._room = memoryview(_room(size if self.can_repeat else CHUNK))
        self._room[: len(come)] = come
        self._changed = threading.Condition()
        self._reader: threading.Thread | None = None
        self._is_gone = False

    @property
    def is_whole(self) -> bool:
        """Whether all of it has been read."""
        return self._come == self._size

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield it from its beginning."""
        if self._reader is None and not self.is_whole:
            self._near.send_continue()
            if self._size >= LARGE and self.can_repeat:
                # Reading and sending take a core each.
                self._reader = threading.Thread(target=self._read_all, name="dls-body", daemon=True)
                self._reader.start()
        yield from self._as_held() if self.can_repeat else self._as_read()

    def _as_held(self) -> Iterator[memoryview]:
        start = 0
        while start < self._size:
            if self._reader is None and start == self._come:
                self._read(start)
            with self._changed:
                while (stop := self._come) == start:
                    if self._is_gone:
                        raise ClientDisconnected
                    self._changed.wait()
            yield self._room[start:stop]
            start = stop

    def _as_read(self) -> Iterator[memoryview]:
        yield self._room[: self._come]
        while not self.is_whole:
            yield self._room[: self._read(0)]

    def _read_all(self) -> None:
        try:
            while not self.is_whole:
                self._read(self._come)
        except ClientDisconnected:
            with self._changed:
                self._is_gone = True
                self._changed.notify()

    def _read(self, start: int) -> int:
        count = self._near.read_into(self._room[start : start + min(CHUNK, self._size - self._come)])
        with self._changed:
            self._come += count
            self._changed.notify()
        return count


class Chunked:
    """A body that comes in chunks until its end, and is sent in chunks."""

    def __init__(self, near: ClientConnection) -> None:
        self._near = near
        self._held: list[bytes] = []
        self._size = 0
        self.is_whole = False

    @property
    def can_repeat(self) -> bool:
        """Whether all of it that was read is still there."""
        return self._size <= MAX_REPLAY_BODY

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield it from its beginning, with the frames of RFC 9112, section 7.1."""
        yield from self._held
        while not self.is_whole:
            self._near.send_continue()
            event = self._near.next_event()
            if isinstance(event, h11.EndOfMessage):
                self.is_whole = True
                piece = b"0\r\n\r\n"
            elif isinstance(event, h11.Data):
                piece = b"%x\r\n%b\r\n" % (len(event.data), event.data)
            else:
                raise ClientDisconnected
            self._size += len(piece)
            if self.can_repeat:
                self._held.append(piece)
            else:
                self._held.clear()
            yield piece


def _room(size: int) -> bytearray | mmap.mmap:
    """Return memory that is taken only as it is filled: a bytearray is written all over before anything has come."""
    if size < LARGE or not hasattr(mmap, "MAP_PRIVATE"):
        return bytearray(size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
