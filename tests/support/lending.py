"""Loans for the tests, and clients that ask their proxy."""

from __future__ import annotations

import contextlib
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from dls.credentials import encode_token
from dls.remote.loan.indexes import Indexes
from dls.remote.loan.laptop import Laptop
from dls.remote.loan.loan import Loan, lend
from dls.remote.loan.names import Name, Names
from dls.remote.loan.terms import Terms
from dls.remote.loan.way_out import WayOut
from dls.remote.progress import Phase, Silent
from dls.remote.ssh.connection import Connection
from tests.support.package_index import Index


def terms(*names: Name, way_out: WayOut = WayOut(), laptop: Laptop | None = None) -> Terms:  # noqa: B008 - frozen
    """Return the terms of a loan of these names."""
    return Terms(Names.of(names), laptop or Laptop(Indexes("https://index.test/simple/")), way_out=way_out)


@contextlib.contextmanager
def lent(connection: Connection, *names: Name, way_out: WayOut = WayOut(None)) -> Iterator[Loan]:  # noqa: B008
    """Lend these names to the host."""
    with lend(connection, terms(*names, way_out=way_out), phase=Phase(Silent())) as loan:
        yield loan


def own(index: Index) -> Name:
    """Return the name of an index of the tests as that of a user's own mirror."""
    return Name(index.host, index.port, is_own=True)


def ask(port: int, head: str) -> tuple[int, str]:
    """Send the head of a request to the proxy; returns the answer's status and all of its text."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        with contextlib.suppress(OSError):  # it may have answered before it has read all
            sock.sendall(head.encode())
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                answer += piece
                if answer.startswith(b"HTTP/1.1 200"):
                    break
    return int(answer.split(b" ")[1]), answer.decode()


def secret_of(loan: Loan) -> str:
    """Return the loan's secret."""
    return loan.proxy_url.partition("//")[2].partition("@")[0].partition(":")[2]


def connect_head(target: str, secret: str | None) -> str:
    """Return the head of a request for a connection to `host:port`."""
    field = "" if secret is None else f"Proxy-Authorization: Basic {encode_token(secret)}\r\n"
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{field}\r\n"


def get(loan: Loan, url: str, ca: Path) -> bytes:
    """Return what a client in Python gets through the loan."""
    context = ssl.create_default_context(cafile=ca)
    proxy = urllib.request.ProxyHandler({"https": loan.proxy_url})
    opener = urllib.request.build_opener(proxy, urllib.request.HTTPSHandler(context=context))
    with opener.open(url, timeout=60) as answer:
        return bytes(answer.read())


def is_listening(port: int) -> bool:
    """Whether something on this machine listens on the loopback port."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
