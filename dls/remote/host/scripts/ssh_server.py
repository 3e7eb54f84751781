"""An SSH server for one connection over standard input and output, for hosts without sshd; needs asyncssh.

Its argument is a folder with `host_key` and `authorized_keys`, which it removes. What connects to it may run commands,
use SFTP, and open channels to ports and Unix sockets of the host in both directions, as the user that runs it.
"""

import asyncio
import os
import shutil
import socket
import sys
import threading
from typing import Any

import asyncssh

PIECE = 65536


class Server(asyncssh.SSHServer):
    """Allows every forward: only the user who started it can log in."""

    def connection_requested(self, *address: Any) -> bool:
        """Allow a channel to a port."""
        return True

    def unix_connection_requested(self, path: str) -> bool:
        """Allow a channel to a Unix socket."""
        return True

    def server_requested(self, host: str, port: int) -> bool:
        """Allow a port that leads back."""
        return True

    def unix_server_requested(self, path: str) -> bool:
        """Allow a Unix socket that leads back."""
        return True


async def shell(process: Any) -> None:
    """Run a command as sshd does: in a shell, with its standard streams on the channel."""
    pipe = asyncio.subprocess.PIPE
    command = process.command or "exec sh"
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    status = await child.wait()
    await process.stdout.drain()
    process.exit(status if status >= 0 else 128 - status)
    await process.wait_closed()


def copy_in(target: socket.socket) -> None:
    """Copy standard input to the socket."""
    try:
        while data := os.read(0, PIECE):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def copy_out(source: socket.socket) -> None:
    """Copy the socket to standard output."""
    try:
        while data := source.recv(PIECE):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    except OSError:
        pass


async def serve(folder: str) -> None:
    """Serve one connection until it ends."""
    ours, theirs = socket.socketpair()
    # Standard input and output may be pipes, sockets or both: threads copy them, whatever they are.
    for copy in (copy_in, copy_out):
        threading.Thread(target=copy, args=(ours,), daemon=True).start()
    theirs.setblocking(False)
    try:
        connection = await asyncssh.run_server(
            theirs,
            server_factory=Server,
            server_host_keys=[os.path.join(folder, "host_key")],  # noqa: PTH118 - runs alone, with what is imported above
            authorized_client_keys=os.path.join(folder, "authorized_keys"),  # noqa: PTH118
            process_factory=shell,
            sftp_factory=True,
            encoding=None,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    await connection.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
