"""A live server behind the proxy, over channels that the test can cut."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from dls.contract import ServerState
from dls.errors import ForwardError
from dls.remote.progress import UploadProgress
from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.ssh.connection import Connection
from dls.remote.tunnel.endpoint import Endpoint
from dls.remote.tunnel.link import Closed, Connected, Link
from dls.remote.tunnel.page import Page, PageFacts
from dls.remote.tunnel.polls import POLL_SECONDS, Polls
from dls.remote.tunnel.proxy import Proxy
from tests.support.itksnap import ItkSnap
from tests.support.processes import until

STATE = ServerState(1, "secret", "c", "r", "/s", None, "region", "cpu", "/l", "/r")


class CuttableChannel(Channel):
    """A socket to the server in the place of an SSH channel.

    It ends after so many bytes of the answer, or of the request; `pause` is called with the size of what is sent.
    """

    def __init__(
        self, address: int | str, cut_after: int | None, cut_sending: int | None, pause: Callable[[int], None]
    ) -> None:
        if isinstance(address, int):
            self._sock = socket.create_connection(("127.0.0.1", address))
        else:
            self._sock = socket.socket(socket.AF_UNIX)
            self._sock.connect(address)
        self._left = cut_after
        self._cut_sending = cut_sending
        self._pause = pause
        self.is_closed = False
        self.sent = b""
        """The first bytes of everything that was sent."""
        self.sent_bytes = 0

    @property
    def is_open(self) -> bool:
        return not self.is_closed

    @property
    def is_answered(self) -> bool:
        return bool(select.select([self._sock], [], [], 0)[0])

    def settimeout(self, seconds: float | None) -> None:
        self._sock.settimeout(seconds)

    def sendall(self, data: bytes | memoryview) -> None:
        self.sent += data[:2000]
        if self._cut_sending is not None:
            data = memoryview(data)[: self._cut_sending - self.sent_bytes]
        self.sent_bytes += len(data)
        self._pause(len(data))
        try:
            self._sock.sendall(data)
            if self.sent_bytes == self._cut_sending:
                self._sock.shutdown(socket.SHUT_RDWR)
                raise OSError("cut")
        except OSError as error:
            raise ChannelError("The channel was closed.") from error

    def recv(self, size: int) -> bytes:
        if self._left is not None and self._left <= 0:
            return b""
        try:
            data = self._sock.recv(size if self._left is None else min(size, self._left))
        except OSError as error:
            raise ChannelError("The channel was closed.") from error
        if self._left is not None:
            self._left -= len(data)
        return data

    def close(self) -> None:
        self.is_closed = True
        self._sock.close()


class LocalEndpoint(Endpoint):
    """An endpoint that opens channels to a port of this computer."""

    def __init__(self, address: int | str, connection: Connection | None = None) -> None:
        super().__init__(cast(Connection, connection), STATE, "0.1.6")
        self.address = address
        """Port or Unix socket of the server."""
        self.cut_sending: list[int | None] = []
        """Number of bytes of the request after which each of the next channels is cut."""
        self.rate: float | None = None
        """Bytes that a channel takes a second, until the host is asked something; None for no limit."""
        self.cuts: list[int | None] = []
        """Number of bytes of the answer after which each of the next channels is cut."""
        self.is_up = True
        self.channels: list[CuttableChannel] = []

    def _pause(self, size: int) -> None:
        if self.rate and not any(channel.sent.startswith(b"GET /dls/") for channel in self.channels):
            time.sleep(size / self.rate)

    def open(self) -> Channel:
        if not self.is_up:
            raise ForwardError("Nobody listens there.")
        answer, request = (cuts.pop(0) if cuts else None for cuts in (self.cuts, self.cut_sending))
        channel = CuttableChannel(self.address, answer, request, self._pause)
        self.channels.append(channel)
        return channel


@dataclass
class ProxiedServer:
    """A local port, the proxy behind it, and the endpoint that the requests go to."""

    link: Link
    endpoint: LocalEndpoint
    port: int
    snap: ItkSnap
    shown: list[str] = field(default_factory=list)
    """What the panel shows of refused prompts."""
    uploads: list[UploadProgress] = field(default_factory=list)
    """What the panel is told of the uploads of images."""
    page_url: str = ""
    """Address of the page with its key, where there is one."""

    def connect(self) -> socket.socket:
        """Open a connection to the local port, for what curl does not do."""
        return socket.create_connection(("127.0.0.1", self.port), 10)

    @contextlib.contextmanager
    def restored_on_demand(self) -> Iterator[None]:
        """Open the link again as soon as a request waits for it."""

        def restore() -> None:
            until(lambda: self.link.demand)
            self.link.handle(Connected(self.endpoint))

        thread = threading.Thread(target=restore)
        thread.start()
        yield
        thread.join()


@contextlib.contextmanager
def proxied(
    server: int | str,
    secret: str | None = None,
    official_timeout: float = 2.0,
    page: PageFacts | None = None,
    poll_seconds: float = POLL_SECONDS,
) -> Iterator[ProxiedServer]:
    """Run a proxy in front of the server at that port or Unix socket; its link opens no channels ahead of need.

    `secret` is the local port's; with `page` it serves a page. A poll waits `poll_seconds` for the server's answer.
    """
    endpoint = LocalEndpoint(server)
    link = Link(endpoint, pool_size=0)
    shown: list[str] = []
    uploads: list[UploadProgress] = []
    proxy = Proxy(
        link,
        timeout=2.0,
        secret=secret,
        show=shown.append,
        official_timeout=official_timeout,
        show_upload=uploads.append,
        page=None if page is None else Page(link, page, secret),
    )
    proxy._polls = Polls(link, poll_seconds)
    with local_port(proxy) as port:
        url = proxy.page.url(port) if proxy.page is not None else ""
        yield ProxiedServer(link, endpoint, port, ItkSnap(port), shown, uploads, url)
    if proxy.page is not None:
        link.handle(Closed())  # ends the streams that are open
    for channel in endpoint.channels:
        channel.close()


@contextlib.contextmanager
def local_port(proxy: Proxy) -> Iterator[int]:
    """Listen on a free port for the proxy."""

    def serve(sock: socket.socket) -> None:
        with sock:
            proxy.serve(sock)

    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    threading.Thread(target=serve, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
