"""What a host says before anybody logs in: its greeting, its host key, and the ways to log in."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import paramiko

from dls.errors import ConnectError
from dls.remote.ssh import host_keys
from dls.remote.ssh.algorithms import propose
from dls.remote.ssh.exceptions import NoCommonAlgorithm, connection_error, translate_errors
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.streams import FAMILIES, open_stream, proxy_error, timeout_of
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
    with contextlib.ExitStack() as cleanup, _translated(target, pipes := []):
        started = time.monotonic()
        stream, carrier = open_stream(target, None)
        if isinstance(carrier, Pipe):
            pipes.append(carrier)
            cleanup.callback(carrier.close)
        seconds = time.monotonic() - started
        transport = HostTransport(stream)
        cleanup.callback(transport.close)
        transport.banner_timeout = timeout_of(target)
        options = transport.get_security_options()
        propose(options, target.algorithms)
        options.key_types = host_keys.order_algorithms(host_keys.known_keys(target), target.algorithms.host_keys)
        transport.start_client(timeout=timeout_of(target))
        key = transport.get_remote_server_key()
        finding = host_keys.look_up(target, host_keys.read_presented(key), time.time())
        return Survey(
            seconds,
            str(transport.remote_version),
            key.get_name(),
            str(key.fingerprint),
            finding.status.value,
            _methods(transport, target.user),
        )


@contextlib.contextmanager
def _translated(target: Target, pipes: list[Pipe]) -> Iterator[None]:
    """Let an error of the connection be one of the ProxyCommand where there is one."""
    try:
        with translate_errors(partial(connection_error, target)):
            yield
    except NoCommonAlgorithm:
        raise
    except ConnectError as error:
        if pipes:
            raise proxy_error(target, pipes[0]) from error
        raise


def _methods(transport: HostTransport, user: str) -> tuple[str, ...]:
    try:
        return tuple(transport.auth_none(user))
    except paramiko.BadAuthenticationType as answer:
        return tuple(answer.allowed_types)
    except paramiko.AuthenticationException:
        return ()
