"""A connection whose keys were made for it: no question, no known_hosts, no configuration."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dls.errors import HostKeyError
from dls.remote.ssh.algorithms import propose
from dls.remote.ssh.connection import KEEPALIVE_SECONDS, Connection
from dls.remote.ssh.exceptions import connection_error, translate_errors
from dls.remote.ssh.streams import Carrier, Stream
from dls.remote.ssh.target import Algorithms, Target
from dls.remote.ssh.transport import HostTransport

START_SECONDS = 30.0
"""Seconds that the server at the other end may take for its greeting and the exchange of keys."""


@dataclass(frozen=True)
class KeyPair:
    """A key that was made for one connection."""

    private: str
    """Its private half, as OpenSSH writes it to a file."""
    public: str
    """Its public half, as a line of authorized_keys."""

    @classmethod
    def generate(cls) -> KeyPair:
        """Make a new Ed25519 key."""
        key = Ed25519PrivateKey.generate()
        encoding, private = serialization.Encoding, serialization.PrivateFormat
        return cls(
            key.private_bytes(encoding.PEM, private.OpenSSH, serialization.NoEncryption()).decode().strip(),
            key.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode(),
        )

    @property
    def paramiko(self) -> paramiko.PKey:
        """The key as paramiko has it."""
        return paramiko.Ed25519Key(file_obj=io.StringIO(self.private))


def open_pinned(
    target: Target,
    stream: Stream,
    host_key: str,
    client_key: KeyPair,
    *,
    kind: str,
    credential: str,
    carriers: Sequence[Carrier],
    new_host_key: str = "",
) -> Connection:
    """Log in over the stream as the target's user; raises HostKeyError where another server answers.

    `host_key` is the server's public key, as a line of authorized_keys has it. `carriers` are closed with the
    connection, and stay open in an error.
    """
    with translate_errors(partial(connection_error, target)):
        transport = _log_in(stream, target.user, host_key, client_key)
    transport.set_keepalive(KEEPALIVE_SECONDS)
    return Connection(target, transport, credential=credential, new_host_key=new_host_key, carriers=carriers, kind=kind)


def _log_in(stream: Stream, user: str, host_key: str, client_key: KeyPair) -> HostTransport:
    stream.settimeout(None)
    transport = HostTransport(stream)
    try:
        transport.banner_timeout = START_SECONDS
        propose(transport.get_security_options(), Algorithms())
        transport.start_client(timeout=START_SECONDS)
        if transport.get_remote_server_key().get_base64() != host_key.split(" ")[1]:
            raise HostKeyError("The SSH server at the other end is not the one that was started.", "Run it again.")
        transport.auth_publickey(user, client_key.paramiko)
    except BaseException:
        transport.close()
        raise
    return transport
