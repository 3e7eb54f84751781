"""What may listen where an SSH server was meant to be."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Listen on a port of which the kernel accepts connections, and nobody reads them; yields the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield int(listener.getsockname()[1])


@contextlib.contextmanager
def answering(answer: bytes, *, reads: bool = False) -> Iterator[int]:
    """Listen on a port where every client gets this answer and the connection is closed; yields the port.

    With `reads`, the client's first bytes are awaited, as an HTTP server does.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return  # the listener was closed
                with connection, contextlib.suppress(OSError):
                    if reads:
                        connection.recv(4096)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
