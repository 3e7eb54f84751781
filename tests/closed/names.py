"""A name server that knows the names of a lab, and says of all others that they do not exist."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Mapping

from tests.closed.nodes import Node

ADDRESS_RECORD, NO_SUCH_NAME = 1, 3


def read_question(query: bytes) -> tuple[str, int, bytes]:
    """Return the name, the type and the bytes of the first question of a query (RFC 1035)."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    [kind] = struct.unpack_from(">H", query, at + 1)
    return ".".join(labels).lower(), kind, query[12 : at + 5]


def answer(query: bytes, table: Mapping[str, str]) -> bytes:
    """Return the answer to a query: the IPv4 address, no address of another kind, or that there is no such name."""
    name, kind, question = read_question(query)
    address = table.get(name)
    record = b""
    if address is not None and kind == ADDRESS_RECORD:
        record = struct.pack(">HHHIH", 0xC00C, ADDRESS_RECORD, 1, 60, 4) + socket.inet_aton(address)
    flags = 0x8180 | (NO_SUCH_NAME if address is None else 0)
    return query[:2] + struct.pack(">HHHHH", flags, 1, bool(record), 0, 0) + question + record


@contextlib.contextmanager
def answering(node: Node, address: str, table: Mapping[str, str]) -> Iterator[None]:
    """Answer on port 53 of an address of the node until the block ends."""

    def listen() -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind((address, 53))
        return opened

    listener = node.call(listen)
    listener.settimeout(0.2)
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError, IndexError, struct.error):
                query, client = listener.recvfrom(4096)
                listener.sendto(answer(query, table), client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        listener.close()
