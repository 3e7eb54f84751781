"""A web proxy that is an office's only way out: it tunnels (CONNECT) for those who know its user and password."""

from __future__ import annotations

import base64
import contextlib
import selectors
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.closed.nodes import Node

USER, PASSWORD = "ward7", "s3cret-of-the-proxy"
MOST_HEAD = 1 << 16


@dataclass
class WebProxy:
    """What a proxy was asked for."""

    address: str
    port: int
    asked: list[str] = field(default_factory=list)
    """Host and port of each tunnel that was opened."""
    refused: int = 0
    """How many requests came without the right user and password."""
    rate: float = 0.0
    """Most bytes a second of a tunnel, towards the client; 0 for no limit."""
    passage: threading.Event = field(default_factory=threading.Event)
    """Tunnels are opened while this is set; others wait for it."""
    waiting: int = 0
    """How many tunnels wait."""

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Open no tunnel until the block ends."""
        self.waiting = 0
        self.passage.clear()
        try:
            yield
        finally:
            self.passage.set()

    @contextlib.contextmanager
    def slowed(self, rate: float) -> Iterator[None]:
        """Let so many bytes a second through each tunnel until the block ends."""
        self.rate = rate
        try:
            yield
        finally:
            self.rate = 0.0

    @property
    def url(self) -> str:
        """The proxy with its user and password, as HTTPS_PROXY has it."""
        return f"http://{USER}:{PASSWORD}@{self.address}:{self.port}"


class Handler(socketserver.BaseRequestHandler):
    """Answers one CONNECT and carries the bytes of its tunnel."""

    proxy: WebProxy
    node: Node
    table: dict[str, str]

    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < MOST_HEAD:
            piece = self.request.recv(4096)
            if not piece:
                return
            head += piece
        first, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if fields.get("proxy-authorization") != expected:
            self.proxy.refused += 1
            self._refuse("407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="office"\r\n')
            return
        verb, where, _ = first.split(" ")
        host, _, port = where.rpartition(":")
        if verb != "CONNECT" or host not in self.table:
            self._refuse("502 Bad Gateway")
            return
        self.proxy.asked.append(where)
        self.proxy.waiting += not self.proxy.passage.is_set()
        self.proxy.passage.wait()
        address = self.table[host]
        with self.node.call(lambda: socket.create_connection((address, int(port)), 10)) as far:
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            far.sendall(head.partition(b"\r\n\r\n")[2])
            carry(self.request, far, self.proxy)

    def _refuse(self, status: str, fields: str = "") -> None:
        self.request.sendall(f"HTTP/1.1 {status}\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())


def carry(near: socket.socket, far: socket.socket, proxy: WebProxy) -> None:
    """Carry bytes both ways until one side has ended and the other has, too, or is gone."""
    peers = {near: far, far: near}
    with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        for each in peers:
            each.settimeout(None)
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if data := source.recv(1 << 16):
                    peers[source].sendall(data)
                    if proxy.rate and source is far:
                        time.sleep(len(data) / proxy.rate)
                else:
                    selector.unregister(source)
                    peers[source].shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxying(node: Node, address: str, port: int, table: dict[str, str]) -> Iterator[WebProxy]:
    """Run the proxy on the node; it resolves the names of the table."""
    proxy = WebProxy(address, port)
    proxy.passage.set()
    handler = type("Handler", (Handler,), {"proxy": proxy, "node": node, "table": table})
    server_class = type(
        "Server", (socketserver.ThreadingTCPServer,), {"allow_reuse_address": True, "daemon_threads": True}
    )
    server: socketserver.ThreadingTCPServer = node.call(lambda: server_class((address, port), handler))
    server.handle_error = lambda *anything: None  # type: ignore[method-assign]  # cut tunnels are expected
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
