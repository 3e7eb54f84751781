"""Ask the server on the host itself, over the connection, with no local port between."""

from __future__ import annotations

import contextlib
import http.client
import json

from dls.contract import ServerState
from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.ssh.connection import Connection

ANSWER_SECONDS = 60
"""How long a server may take to say who it is: while it imports torch from a slow disk, it says nothing."""


def identify(connection: Connection, state: ServerState) -> dict[str, object]:
    """Ask the server itself who it is and return what it says; empty unless pid, secret and code are as written."""
    said = ask_status(connection, state)
    return said if said.get("pid") == state.pid and said.get("code") == state.code else {}


def ask_status(connection: Connection, state: ServerState) -> dict[str, object]:
    """Return the server's own `/status` through the connection; empty when it does not answer as it should.

    Raises Prohibited where the host forbids the way to it.
    """
    try:
        status, body = ask(connection, state, "/status")
        said = json.loads(body) if status == 200 else {}
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def open_channel(connection: Connection, state: ServerState) -> Channel:
    """Open a channel to the server: to its socket, or to its port where sockets can't be forwarded."""
    if state.port is None:
        return connection.open_unix(state.socket)
    return connection.open_tcp("127.0.0.1", state.port)


def ask(connection: Connection, state: ServerState, path: str) -> tuple[int, bytes]:
    """Ask the server something and return the answer's status and body; status 0 when there was no whole answer."""
    with contextlib.closing(open_channel(connection, state)) as channel:
        channel.settimeout(ANSWER_SECONDS)
        # http.client asks for no more of a socket than a channel has: sendall and makefile. It must not be told to
        # close: it would close the channel before it reads the body.
        asking = http.client.HTTPConnection("localhost")
        asking.sock = channel
        try:
            asking.request("GET", path, headers={"Authorization": f"Basic {state.credentials}"})
            answer = asking.getresponse()
            return answer.status, answer.read(65536)
        except (ChannelError, http.client.HTTPException):
            return 0, b""
