"""The listener on [::1]: a system without that address, and a port that somebody has."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys

import pytest

from dls.errors import ForwardError
from dls.remote.tunnel.listener import _open_ipv6, check_port
from tests.support.ipv6 import NEEDS_IPV6


def answer(sock: socket.socket) -> None:
    sock.sendall(b"here")


@NEEDS_IPV6
def test_a_port_that_somebody_has() -> None:
    """It is taken, as the same port on 127.0.0.1 would be; once it is free, connections are answered until the end."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as caught:
            _open_ipv6(port, answer)
        assert caught.value.errno == errno.EADDRINUSE
    listener = _open_ipv6(port, answer)
    assert listener is not None
    with socket.create_connection(("::1", port), 10) as sock:
        assert sock.makefile("rb").read() == b"here"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)
    listener.close()
    listener.close()  # closing twice does nothing
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", port), 10)


def test_a_taken_port_is_noticed_before_anything_is_opened() -> None:
    """The check says what opening would say, on either loopback address, and holds no port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
        taken.listen()
        with pytest.raises(ForwardError, match=f"local port {port} can't be opened"):
            check_port(port)
    check_port(port)
    check_port()


def test_a_system_without_ipv6() -> None:
    """There is no second listener then, and nothing else is different."""
    without = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
    alone = ["unshare", "--net", "sh", "-c", f'{without} && exec "$@"', "-"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs root and unshare")
    code = "from dls.remote.tunnel.listener import _open_ipv6; print(_open_ipv6(8911, lambda sock: None))"
    done = subprocess.run([*alone, sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"
