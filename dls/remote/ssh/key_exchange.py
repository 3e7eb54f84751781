"""The key exchange with a host (RFC 4253): what is proposed, and how long it may take."""

from __future__ import annotations

import paramiko

from dls.remote.ssh.algorithms import propose
from dls.remote.ssh.host_keys import known_keys, order_algorithms
from dls.remote.ssh.streams import timeout_of
from dls.remote.ssh.target import Target
from dls.remote.ssh.transport import HostTransport


def exchange_keys(transport: HostTransport, target: Target) -> paramiko.PKey:
    """Exchange keys with the target, and return the key that it presents, which nobody has checked yet."""
    transport.banner_timeout = timeout_of(target)
    options = transport.get_security_options()
    propose(options, target.algorithms)
    options.key_types = order_algorithms(known_keys(target), target.algorithms.host_keys)
    transport.start_client()  # ends by itself: the greeting and the key exchange have time limits of their own
    return transport.get_remote_server_key()
