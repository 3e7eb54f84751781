"""A proxy command as people write them in Python: connects its standard streams to a TCP port."""

from __future__ import annotations

import os
import socket
import sys
import threading


def main(host: str, port: str) -> None:
    """Copy bytes both ways until both ends have closed."""
    with socket.create_connection((host, int(port))) as connection:

        def send() -> None:
            while data := os.read(0, 65536):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        while data := connection.recv(65536):
            os.write(1, data)


if __name__ == "__main__":
    main(*sys.argv[1:])
