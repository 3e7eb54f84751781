"""Mutual proof on a loopback port: both ends show that they know the server's secret, which itself never travels.

Everybody on a host can connect to its loopback ports, and whoever holds a port can pose as the server. So before the
first byte of a request, client and server exchange nonces and HMACs over them; the port is part of what is signed, so
that nobody can pass the exchange on to the real server on another port.

    client -> server    magic, client's nonce (32 bytes)
    server -> client    server's nonce (32 bytes), HMAC as the server
    client -> server    HMAC as the client, then HTTP
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import Callable
from typing import Any, cast

from dls.contract import NONCE_BYTES, PROOF_BYTES, PROOF_MAGIC, prove
from dls.server.http.refusals import describe

PROOF_SECONDS = 15.0
"""How long a client may take to prove that it knows the secret."""
MAX_UNPROVEN = 256
"""Connections that have not proved anything; beyond this number the oldest is closed."""
HELLO_BYTES = len(PROOF_MAGIC) + NONCE_BYTES
REFUSAL_BODY = json.dumps(describe("This port is for dls connect. Connect through it.")).encode()
REFUSAL = (
    b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(REFUSAL_BODY), REFUSAL_BODY)
)


class ProofProtocol(asyncio.Protocol):
    """One connection to the port until its client has proved that it knows the secret; then HTTP."""

    def __init__(
        self, secret: str, port: int, make_http: Callable[[], asyncio.Protocol], unproven: dict[ProofProtocol, None]
    ) -> None:
        self._secret = secret
        self._port = port
        self._make_http = make_http
        self._unproven = unproven
        self._received = b""
        self._client_nonce = self._server_nonce = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client's nonce, for a limited time."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._timer = asyncio.get_running_loop().call_later(PROOF_SECONDS, self._transport.abort)
        self._unproven[self] = None
        if len(self._unproven) > MAX_UNPROVEN:
            next(iter(self._unproven))._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        self._forget()

    def _forget(self) -> None:
        self._timer.cancel()
        self._unproven.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """Take the next step of the exchange."""
        self._received += data
        if not self._client_nonce:
            if self._received[: len(PROOF_MAGIC)] != PROOF_MAGIC[: len(self._received)]:
                self._transport.write(REFUSAL)
                self._transport.close()
            elif len(self._received) >= HELLO_BYTES:
                self._answer_hello()
        elif len(self._received) >= PROOF_BYTES:
            self._check_proof()

    def _answer_hello(self) -> None:
        self._client_nonce = self._received[len(PROOF_MAGIC) : HELLO_BYTES]
        self._received = self._received[HELLO_BYTES:]
        self._server_nonce = secrets.token_bytes(NONCE_BYTES)
        self._transport.write(self._server_nonce + self._prove("server"))

    def _prove(self, role: str) -> bytes:
        return prove(self._secret, role, self._port, self._client_nonce, self._server_nonce)

    def _check_proof(self) -> None:
        proof, rest = self._received[:PROOF_BYTES], self._received[PROOF_BYTES:]
        if not hmac.compare_digest(proof, self._prove("client")):
            self._transport.abort()
            return
        self._forget()
        protocol: Any = self._make_http()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if rest:
            protocol.data_received(rest)
