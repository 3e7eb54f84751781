"""The host's end of the tunnel."""

from __future__ import annotations

from dataclasses import dataclass

from dls.contract import ServerState
from dls.remote.host import status
from dls.remote.ssh.channel import Channel
from dls.remote.ssh.connection import Connection


@dataclass(frozen=True)
class Endpoint:
    """A server on the host and the SSH connection that leads to it."""

    connection: Connection
    state: ServerState
    version: str
    """Version of ITK-SNAP's protocol, as the server reports it in `/status`."""

    def open(self) -> Channel:
        """Open a channel to the server; raises a DlsError."""
        return status.open_channel(self.connection, self.state)
