"""A jump host that is logged in to already, as the way of a child `ssh`: so nobody has to log in to it twice.

`ssh` runs a ProxyCommand of ours, which meets this process at a Unix socket; behind it is a channel of the jump host's
connection.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import socket
import sys
import threading
from pathlib import Path

from dls.remote.carriers.private_folder import make_private_folder
from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.streams import open_jump_channel
from dls.remote.ssh.target import Target

PIECE = 65536


class Relay:
    """A Unix socket that leads, once, to a channel of a jump host; closing it closes the jump host's connection too."""

    def __init__(self, jump_host: Connection, channel: Channel) -> None:
        self._jump_host = jump_host
        self._channel = channel
        self._folder = make_private_folder("dls-relay-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / "socket"))
        self._listener.listen(1)
        threading.Thread(target=self._serve, name="dls-relay", daemon=True).start()

    @classmethod
    def open(cls, jump_host: Connection, target: Target) -> Relay:
        """Open the channel to the target; raises what a login through that jump host raises."""
        return cls(jump_host, Channel(open_jump_channel(jump_host, target)))

    @property
    def command(self) -> str:
        """The ProxyCommand for `ssh`."""
        client = Path(__file__).with_name("relay_client.py")
        words = [sys.executable, "-I", "-S", str(client), str(self._folder / "socket")]
        return shlex.join(words).replace("%", "%%")

    def _serve(self) -> None:
        with contextlib.suppress(OSError, ChannelError):
            connection, _ = self._listener.accept()
            with connection:
                threading.Thread(target=self._copy_out, args=(connection,), name="dls-relay-out", daemon=True).start()
                while data := connection.recv(PIECE):
                    self._channel.sendall(data)
                self._channel.shutdown_write()
        self._channel.close()

    def _copy_out(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ChannelError):
            while data := self._channel.recv(PIECE):
                connection.sendall(data)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the channel and the jump host's connection, and remove the socket."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._channel.close()
        self._jump_host.close()
        shutil.rmtree(self._folder, ignore_errors=True)
