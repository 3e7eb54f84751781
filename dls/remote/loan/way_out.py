"""The way out of this computer's network: directly, or through the web proxy that it has itself."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dls.errors import TargetError
from dls.remote.certificates import default_context
from dls.remote.loan.names import is_public

CONNECT_SECONDS = 15.0
"""Seconds that one address may take to answer, and the proxy to open a connection."""
ANSWER_LIMIT = 64 << 10
"""Bytes that the head of a proxy's answer may have."""


class Unreachable(Exception):
    """This computer does not reach the name; the text says why."""


class NotPublic(Exception):
    """The name leads to an address of this computer or its network, which is not lent."""


@dataclass(frozen=True)
class WebProxy:
    """A proxy that this computer's programs have to use."""

    host: str
    port: int
    login: str = field(default="", repr=False)
    """`user:password`; empty where the proxy's address has no credentials."""

    @property
    def authorization(self) -> str:
        """Value of the Proxy-Authorization field; empty without credentials."""
        return "Basic " + base64.b64encode(self.login.encode()).decode() if self.login else ""

    @property
    def address(self) -> str:
        """The proxy as a URL, with its credentials."""
        login = ":".join(urllib.parse.quote(part, safe="") for part in self.login.split(":", 1))
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{login + '@' if login else ''}{host}:{self.port}"

    @classmethod
    def parse(cls, address: str) -> WebProxy:
        """Return the proxy of an address; raises TargetError for one of another kind than HTTP."""
        text = address if "://" in address else f"http://{address}"
        hint = "Name an HTTP proxy: HTTPS_PROXY=http://HOST:PORT."
        try:
            parts = urllib.parse.urlsplit(text)
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            raise TargetError("The address of this computer's web proxy can't be read.", hint) from None
        if not host or parts.scheme != "http":
            kind = parts.scheme if host and parts.scheme else "another protocol"
            raise TargetError(f"This computer's web proxy is one for {kind}, which a loan can't pass.", hint)
        if parts.username is None:
            return cls(host, port)
        return cls(host, port, ":".join(urllib.parse.unquote(part or "") for part in (parts.username, parts.password)))


def find_proxy(proxies: Mapping[str, str], configured: str = "") -> WebProxy | None:
    """Return the proxy for HTTPS among those of `urllib.request.getproxies`, else the one of pip's configuration."""
    address = proxies.get("https") or proxies.get("all") or configured
    return WebProxy.parse(address) if address else None


@dataclass(frozen=True)
class WayOut:
    """Opens connections from this computer to the names that are lent."""

    proxy: WebProxy | None = None
    bypasses: Callable[[str], bool] = lambda host: bool(urllib.request.proxy_bypass(host))
    """Whether a name is reached without the proxy (NO_PROXY, or the system's settings)."""
    ca_bundle: str = field(default="", repr=False)
    """Certificates of authorities to trust beside those of the system (PEM)."""
    _proven: set[tuple[str, str]] = field(default_factory=set, repr=False, compare=False)
    """Names and private addresses that belong together, by a certificate."""

    def open(self, host: str, port: int, *, may_be_private: bool) -> tuple[socket.socket, bytes]:
        """Return a connection, and the bytes that came on it already; raises Unreachable or NotPublic."""
        proxy = None if self.proxy is None or self.bypasses(host) else self.proxy
        try:
            if proxy is None:
                return self._open_directly(host, port, may_be_private), b""
            return _open_through(proxy, host, port)
        except OSError as error:
            through = f" through the proxy {proxy.host}:{proxy.port}" if proxy else ""
            reason = (error.strerror or str(error) or type(error).__name__).rstrip(".")
            raise Unreachable(f"{host} can't be reached from there{through}: {reason}.") from error

    def _open_directly(self, host: str, port: int, may_be_private: bool) -> socket.socket:
        # The address that was judged is the one that is connected to: a second look at the name could give another one.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        # Networks that have IPv6 only by name are frequent: IPv4 is tried first.
        found.sort(key=lambda row: row[0] != socket.AF_INET)
        allowed = [row for row in found if may_be_private or is_public(str(row[4][0]))]
        failure = OSError("it has no address")
        for family, _, _, _, address in allowed or [row for row in found if self._is_proven(host, row)]:
            try:
                return _ready(_connect(family, address))
            except OSError as error:
                failure = error
        if found and not allowed and not failure.errno:
            raise NotPublic(f"{host} leads to an address that is not public, and has no certificate for that name.")
        raise failure

    def _is_proven(self, host: str, row: tuple[Any, ...]) -> bool:
        """Return whether a private address has a certificate for the name.

        A network may have a mirror of its own behind a public name. Any other server there, at which somebody else let
        the name point, has no such certificate.
        """
        family, address = row[0], row[4]
        if (host, address[0]) in self._proven:
            return True
        try:
            context = default_context()
            if self.ca_bundle:
                context.load_verify_locations(cadata=self.ca_bundle)
            with _connect(family, address) as sock, context.wrap_socket(sock, server_hostname=host):
                self._proven.add((host, address[0]))
                return True
        except (OSError, ValueError):  # an error of TLS is an OSError
            return False


def _connect(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(CONNECT_SECONDS)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _ready(sock: socket.socket) -> socket.socket:
    sock.settimeout(None)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _open_through(proxy: WebProxy, host: str, port: int) -> tuple[socket.socket, bytes]:
    sock = socket.create_connection((proxy.host, proxy.port), CONNECT_SECONDS)
    try:
        credentials = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{credentials}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = sock.recv(4096)
            if not piece or len(answer) > ANSWER_LIMIT:
                raise OSError("it gave no answer")
            answer += piece
        head, _, early = answer.partition(b"\r\n\r\n")
        status = re.match(rb"HTTP/1\.[01] (\d{3})", head)
        if status is None or not status[1].startswith(b"2"):
            raise OSError(f"it answered {status[1].decode()}" if status else "it is no HTTP proxy")
    except BaseException:
        sock.close()
        raise
    return _ready(sock), early
