"""What a host says before anybody logs in: its greeting, its host key, and the ways to log in."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass
from functools import partial

import paramiko

from dls.remote.ssh import host_keys
from dls.remote.ssh.exceptions import connection_error, translate_errors
from dls.remote.ssh.key_exchange import exchange_keys
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.streams import FAMILIES, explain_proxy, open_stream
from dls.remote.ssh.target import Target
from dls.remote.ssh.transport import HostTransport


@dataclass(frozen=True)
class Survey:
    """What a host says before anybody logs in."""

    seconds: float
    """Time that the connection took to open, in seconds."""
    greeting: str
    key_type: str
    fingerprint: str
    key_status: str
    """`known`, `new`, `changed` or `revoked`."""
    methods: tuple[str, ...]
    """The authentication methods that it accepts; empty where it asks for none."""


def addresses(target: Target) -> list[str]:
    """Return the addresses of the host's name; raises ConnectError where it has none."""
    family = FAMILIES.get(target.address_family, socket.AF_UNSPEC)
    with translate_errors(partial(connection_error, target)):
        found = socket.getaddrinfo(target.host, target.port, family, socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def survey(target: Target) -> Survey:
    """Ask the host, over a connection of its own that is closed before any login; its key is not added anywhere.

    Raises what `Connection.open` raises for a host that can't be reached or has no algorithm in common.
    """
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(translate_errors(partial(connection_error, target)))
        started = time.monotonic()
        stream, carrier = open_stream(target, None)
        if isinstance(carrier, Pipe):
            cleanup.callback(carrier.close)
        seconds = time.monotonic() - started
        cleanup.enter_context(explain_proxy(target, carrier))
        cleanup.enter_context(translate_errors(partial(connection_error, target)))
        transport = HostTransport(stream)
        cleanup.callback(transport.close)
        key = exchange_keys(transport, target)
        finding = host_keys.look_up(target, host_keys.read_presented(key), time.time())
        return Survey(
            seconds,
            str(transport.remote_version),
            key.get_name(),
            str(key.fingerprint),
            finding.status.value,
            _methods(transport, target.user),
        )


def _methods(transport: HostTransport, user: str) -> tuple[str, ...]:
    try:
        return tuple(transport.auth_none(user))
    except paramiko.BadAuthenticationType as answer:
        return tuple(answer.allowed_types)
    except paramiko.AuthenticationException:
        return ()
