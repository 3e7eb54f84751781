"""The SSH server from a library, which the demo and the tests run, closes all that it opened."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import ForwardError
from dls.remote.ssh.channel import ChannelError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from tests.support.logins import target_of


def test_a_connection_accepted_at_the_end_is_closed(short_folder: Path) -> None:
    """A client that connects while the server closes is disconnected, and no transport is left open."""
    for number in range(5):
        folder = short_folder / str(number)
        folder.mkdir()
        with sshd.running(folder, library=True) as server:
            client = socket.create_connection(("127.0.0.1", server.port))
        with client:
            client.settimeout(30)
            try:
                while client.recv(1000):
                    pass
            except ConnectionError:
                pass
    gc.collect()  # a transport that was left open raises ResourceWarning here


@pytest.mark.slow
def test_a_forward_with_unsent_data_is_closed(short_folder: Path) -> None:
    """A forwarded connection is closed even if its peer never reads the data."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with sshd.running(short_folder, library=True) as server:
            connection = Connection.open(target_of(server), NoPrompter())
            channel = connection.open_tcp("127.0.0.1", listener.getsockname()[1])
            channel.settimeout(1)
            with pytest.raises(ChannelError):
                channel.sendall(bytes(64 << 20))
        connection.close()
    gc.collect()


def test_a_forward_to_a_closed_port_is_refused(short_folder: Path) -> None:
    """A port where nobody listens raises ForwardError; a Unix socket is reached."""
    with sshd.running(short_folder, library=True) as server:
        connection = Connection.open(target_of(server), NoPrompter())
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            with pytest.raises(ForwardError):
                connection.open_tcp("127.0.0.1", closed.getsockname()[1])
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(short_folder / "s"))
            listener.listen()
            channel = connection.open_unix(str(short_folder / "s"))
            with listener.accept()[0] as peer:
                peer.sendall(b"hello")
                assert channel.recv(100) == b"hello"
        connection.close()
    gc.collect()
