"""Mutual proof on a channel to the server's loopback port: the client's half.

Everybody on a host can connect to its loopback ports, and whoever holds a port can pose as the server. So both ends
prove that they know the server's secret before a byte of a request goes out; the secret itself never travels.
`dls/server/http/proof.py` has the server's half and describes the exchange.
"""

from __future__ import annotations

import hmac
import secrets

from dls.contract import NONCE_BYTES, PROOF_BYTES, PROOF_MAGIC, ServerState, prove
from dls.errors import ForwardError
from dls.remote.ssh.channel import Channel, ChannelError


class NotOurServer(ForwardError):
    """What listens on the server's port does not know the server's secret."""


def prove_both_ways(channel: Channel, state: ServerState, host: str, seconds: float) -> None:
    """Let the server prove that it knows the secret of its state file, and prove it to the server.

    `host` is the name of the host for messages, and `seconds` is how long the server may be silent. Raises NotOurServer
    when its proof is false, and ForwardError when none comes.
    """
    assert state.port is not None
    nonce = secrets.token_bytes(NONCE_BYTES)
    channel.settimeout(seconds)
    try:
        channel.sendall(PROOF_MAGIC + nonce)
        answer = _receive(channel, NONCE_BYTES + PROOF_BYTES)
        server_nonce, proof = answer[:NONCE_BYTES], answer[NONCE_BYTES:]
        if not hmac.compare_digest(proof, prove(str(state.secret), "server", state.port, nonce, server_nonce)):
            raise NotOurServer(
                f"What listens on port {state.port} of {host} can't prove that it is our server.",
                "Another program holds that port, or a server of an earlier release. Connect again: dls connect.",
            )
        channel.sendall(prove(str(state.secret), "client", state.port, nonce, server_nonce))
    except ChannelError as error:
        raise ForwardError(
            f"The server on {host} closed a channel, or was silent, before it had proved who it is.",
            "Is the server still running there?",
        ) from error
    channel.settimeout(None)


def _receive(channel: Channel, size: int) -> bytes:
    received = b""
    while len(received) < size:
        data = channel.recv(size - len(received))
        if not data:
            raise ChannelError("The channel to the host was closed.")
        received += data
    return received
