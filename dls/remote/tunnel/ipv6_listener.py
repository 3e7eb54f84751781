"""The local port on [::1], beside the one on 127.0.0.1: "localhost" may mean either of them.

A client that tries [::1] first would reach whoever listens there, another user of this computer perhaps.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from typing import Any

ADDRESS = "::1"
"""The loopback address of IPv6."""
POLL_SECONDS = 0.1
"""Seconds between two looks at whether to stop."""


class _Server(socketserver.ThreadingTCPServer):
    """A threaded listener on IPv6 alone. On Windows, address reuse would let two programs share one port."""

    address_family = socket.AF_INET6
    allow_reuse_address = sys.platform != "win32"
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the connection has ended, as on 127.0.0.1


class Ipv6Listener:
    """Gives each connection to a port on [::1] to a handler, in a thread of its own."""

    def __init__(self, port: int, handler: type[socketserver.BaseRequestHandler]) -> None:
        """Listen; raises OSError where the port is taken or the system has no IPv6."""
        self._server = _Server((ADDRESS, port), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="dls-ipv6-listener", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; open connections go on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
