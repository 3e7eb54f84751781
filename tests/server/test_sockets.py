"""The sockets of a server that a user starts."""

from __future__ import annotations

import socket

import pytest

from dls.errors import ListenError
from dls.server.sockets import other_loopback, tcp_socket
from tests.support.ipv6 import NEEDS_IPV6


@NEEDS_IPV6
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_both_loopback_addresses(host: str) -> None:
    """Clients reach the server on either of them, with the same port."""
    with tcp_socket(host, 0) as listener:
        other = other_loopback(host, listener)
        assert other is not None
        with other:
            assert {listener.family, other.family} == {socket.AF_INET, socket.AF_INET6}
            for address in ("127.0.0.1", "::1"):
                socket.create_connection((address, listener.getsockname()[1]), 10).close()


@NEEDS_IPV6
def test_somebody_else_on_the_other_address() -> None:
    """The port is in use then, because "localhost" would lead to them."""
    with tcp_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_server(("::1", port), family=socket.AF_INET6), pytest.raises(ListenError, match="in use"):
            other_loopback("127.0.0.1", listener)


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "gpu"])
def test_another_address(host: str) -> None:
    """Where the user has named another address, nothing else is bound."""
    with tcp_socket("127.0.0.1", 0) as listener:
        assert other_loopback(host, listener) is None
