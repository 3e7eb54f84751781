"""Send requests to the server over the SSH connection itself, without a local port."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Mapping

from dls.contract import FACTS_PATH, ServerState
from dls.credentials import encode_token
from dls.remote.host.proof import prove_both_ways
from dls.remote.progress import Phase, TransferMeter
from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.ssh.connection import Connection

ANSWER_SECONDS = 60
"""Seconds to wait for an answer: while a server imports torch from a slow disk, it answers nothing."""


def identify(connection: Connection, state: ServerState) -> dict[str, object]:
    """Return the server's status if it is the server of the state file (same pid, secret and code), else nothing."""
    fields = get_status(connection, state)
    return fields if fields.get("pid") == state.pid and fields.get("code") == state.code else {}


def get_status(connection: Connection, state: ServerState) -> dict[str, object]:
    """Return the server's `/status`; empty when it gives no valid answer.

    Raises ForwardError when nobody listens there, and Prohibited when the host forbids the forwarding.
    """
    return _get_fields(connection, state, "/status")


def get_facts(connection: Connection, state: ServerState) -> dict[str, object]:
    """Return what the server tells its user about itself; empty for a server of an earlier release.

    Raises ForwardError when nobody listens there.
    """
    return _get_fields(connection, state, FACTS_PATH)


def _get_fields(connection: Connection, state: ServerState, path: str) -> dict[str, object]:
    try:
        code, body = request(connection, state, path)
        fields = json.loads(body) if code == 200 else {}
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


class DownloadWatch:
    """Shows how far the server's download of its model is, from one status to the next."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase
        self._meter: TransferMeter | None = None

    def show(self, status: Mapping[str, object]) -> None:
        """Show what a status says of a download; nothing where none is under way."""
        done, total = status.get("done"), status.get("total")
        if status.get("step") != "download" or not isinstance(done, int) or not isinstance(total, int) or total <= 0:
            return
        if self._meter is None:
            self._meter = TransferMeter(self._phase, "weights", total, done)
        self._meter.add(done - self._meter.done)


def open_channel(connection: Connection, state: ServerState) -> Channel:
    """Open a channel to the server: to its socket, or to its port where sockets can't be forwarded.

    Everybody on the host could listen on that port, so both ends prove that they know the secret before a request is
    sent. Raises NotOurServer when the server can't, ForwardError when nobody answers there, and Prohibited when the
    host forbids the forwarding.
    """
    if state.port is None:
        return connection.open_unix(state.socket)
    channel = connection.open_tcp("127.0.0.1", state.port)
    try:
        prove_both_ways(channel, state, connection.target.label, ANSWER_SECONDS)
    except BaseException:
        channel.close()
        raise
    return channel


def request(connection: Connection, state: ServerState, path: str) -> tuple[int, bytes]:
    """Send a GET request to the server and return the answer's status and body; status 0 without a whole answer."""
    with contextlib.closing(open_channel(connection, state)) as channel:
        channel.settimeout(ANSWER_SECONDS)
        # http.client needs only the methods of a socket that a channel has: sendall and makefile. The request must not
        # say "Connection: close": http.client would then close the channel before it reads the body.
        client = http.client.HTTPConnection("localhost")
        client.sock = channel
        # Only its user can open the socket. On a port, the proof has taken the place of the secret.
        headers = {"Authorization": f"Basic {encode_token(str(state.secret))}"} if state.port is None else {}
        try:
            client.request("GET", path, headers=headers)
            response = client.getresponse()
            return response.status, response.read(65536)
        except (ChannelError, http.client.HTTPException):
            return 0, b""
