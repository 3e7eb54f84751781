"""Serve requests as fast as Python's sockets can: `GET /bytes/N` returns N bytes, a POST is read to its end.

`byte_server.py SOCKET` listens on a loopback port and on that Unix socket. Prints the port.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading

BLOCK = bytes(1 << 20)


class Handler(socketserver.BaseRequestHandler):
    """Handles one request."""

    request: socket.socket

    def handle(self) -> None:
        """Read the head and the body, and send the response."""
        if self.request.family == socket.AF_INET:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.request.recv(65536)
            if not data:
                return
            head += data
        head, _, body = head.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if b"expect" in fields:
            self.request.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        left = int(fields.get(b"content-length", 0)) - len(body)
        buffer = bytearray(1 << 20)
        while left > 0:
            count = self.request.recv_into(buffer, min(left, len(buffer)))
            if count == 0:
                return
            left -= count
        path = head.split(b" ", 2)[1]
        size = int(path.rpartition(b"/")[2]) if path.startswith(b"/bytes/") else 2
        self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        while size > 0:
            self.request.sendall(BLOCK[:size] if size < len(BLOCK) else BLOCK)
            size -= len(BLOCK)


class Server(socketserver.ThreadingTCPServer):
    """Handles each connection in its own thread."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


class UnixServer(socketserver.ThreadingUnixStreamServer):
    """Handles each connection to the Unix socket in its own thread."""

    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Handler) as server, UnixServer(sys.argv[1], Handler) as unix_server:
        threading.Thread(target=unix_server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdout.close()
        server.serve_forever()
