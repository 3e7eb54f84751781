"""The ProxyCommand of an `ssh` whose way leads through a connection of ours: copies its bytes to a Unix socket.

It runs alone, without our package; its argument is the socket's path.
"""

import os
import socket
import sys
import threading

PIECE = 65536


def main() -> None:
    """Copy standard input to the socket and the socket to standard output until one of them ends."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(sys.argv[1])

        def copy_in() -> None:
            while data := os.read(0, PIECE):
                connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=copy_in, daemon=True).start()
        while data := connection.recv(PIECE):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]


if __name__ == "__main__":
    main()
