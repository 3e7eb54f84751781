"""Whether this machine has IPv6's loopback address."""

from __future__ import annotations

import socket

import pytest


def has_ipv6() -> bool:
    """Whether a program can listen on [::1]."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


NEEDS_IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no [::1]")
