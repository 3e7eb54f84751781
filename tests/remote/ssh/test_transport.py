"""The transport: ciphers, window size, buffered reads."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

from dls.remote.ssh import transport
from dls.remote.ssh.connection import Connection


def test_aes_gcm_is_negotiated(connection: Connection) -> None:
    """The cipher is AES-GCM; paramiko alone would choose AES-CTR."""
    assert vars(connection.transport)["remote_cipher"] == "aes128-gcm@openssh.com"


def test_window_grows_with_the_round_trip(connection: Connection) -> None:
    """The window carries a gigabit, between 2 and 16 MiB: OpenSSH copies all that it may read ahead, repeatedly."""
    assert [transport.optimal_window(trip) >> 20 for trip in (0.0, 0.01, 0.05, 0.1, 0.3)] == [2, 2, 6, 12, 16]
    trip = connection.transport.round_trip
    assert 0 < trip < 5
    with contextlib.closing(connection.transport.open_session()) as channel:
        assert channel.in_window_size == transport.optimal_window(trip)


def test_buffered_reads_lose_nothing() -> None:
    """All bytes come in order, whatever sizes are read; closing closes the socket below."""
    receiver, sender = socket.socketpair()
    sent = random.Random(0).randbytes(transport.READ_BYTES + 100_000)

    def send() -> None:
        with sender:
            sender.sendall(sent)

    thread = threading.Thread(target=send)
    thread.start()
    reader, received = transport.BufferedSocket(receiver), b""
    while data := reader.recv(1 + len(received) % 40_000):
        received += data
    thread.join()
    assert received == sent
    reader.close()
    assert receiver.fileno() == -1


def test_host_key_algorithms_are_proposed_as_they_were_set() -> None:
    """paramiko alone would add a certificate's algorithm for each of them, allowed or not."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = transport.HostTransport(ours)
        made.get_security_options().key_types = ("rsa-sha2-512", "ssh-ed25519-cert-v01@openssh.com")
        assert made.preferred_keys == ("rsa-sha2-512", "ssh-ed25519-cert-v01@openssh.com")
        made.close()
