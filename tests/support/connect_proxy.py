"""A web proxy on loopback, as networks of hospitals have one: CONNECT only, with credentials where they are wanted."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass
class WebProxy:
    """A running proxy."""

    port: int = 0
    credentials: str = ""
    """`user:password` that each request must carry; empty for none."""
    addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Where the proxy finds `host:port`; a name that is not here can't be reached."""
    asked: list[str] = field(default_factory=list)
    """The `host:port` of each request."""

    @property
    def url(self) -> str:
        """The proxy's address, with its credentials."""
        return f"http://{self.credentials + '@' if self.credentials else ''}127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(4096)
                if not piece:
                    return
                head += piece
            lines = head.decode().split("\r\n")
            target = lines[0].split(" ")[1]
            self.asked.append(target)
            expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
            if self.credentials and f"Proxy-Authorization: {expected}" not in lines:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            if target not in self.addresses:
                client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection(self.addresses[target]) as upstream:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=copy, args=(upstream, client), daemon=True)
                back.start()
                copy(client, upstream)
                back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copy what comes until its end, and pass on the end."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def running(addresses: Mapping[str, tuple[str, int]], credentials: str = "") -> Iterator[WebProxy]:
    """Run a proxy until the block ends; it reaches these `host:port` at these addresses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = WebProxy(listener.getsockname()[1], credentials, addresses)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield proxy
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    thread.join()
