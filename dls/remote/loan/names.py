"""The names that a host may reach over a loan: pure, values only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

HTTPS = 443
HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
"""A name as name servers know it, in lower case, and nothing that another proxy could read as an address of its own."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses of IPv6 that stand for those of IPv4 (RFC 6052)."""


@dataclass(frozen=True)
class Name:
    """A host name, or with `*.` at its beginning all names below one, and the port that may be reached there."""

    host: str
    port: int = HTTPS
    is_own: bool = False
    """Whether the user named it: an own mirror may have a private address and a port of its own."""

    def covers(self, host: str, port: int) -> bool:
        """Return whether this is the name and the port."""
        if port != self.port:
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host

    def __str__(self) -> str:
        return self.host if self.port == HTTPS else f"{self.host}:{self.port}"


TORCH = (Name("download.pytorch.org"), Name("download-r2.pytorch.org"))
"""torch's index and its files."""
HUB = (Name("huggingface.co"), Name("*.huggingface.co"), Name("*.hf.co"))
"""The model hub and its files."""
PYTHONS = (Name("github.com"), Name("*.githubusercontent.com"), Name("releases.astral.sh"))
"""Where uv gets a Python for a host that has none that is new enough."""


@dataclass(frozen=True)
class Names:
    """A list of names."""

    all: tuple[Name, ...]

    @classmethod
    def of(cls, names: Iterable[Name]) -> Names:
        """Return a list with each name once; one that is the user's own anywhere is own."""
        found: dict[tuple[str, int], Name] = {}
        for name in names:
            key = (name.host, name.port)
            if key not in found or name.is_own:
                found[key] = name
        return cls(tuple(found.values()))

    def find(self, host: str, port: int) -> Name | None:
        """Return the name on the list that covers a host name and a port; None for what is no name, as an address."""
        host = host.lower().rstrip(".")
        # "evil.test:443/x.hf.co" ends as a name below hf.co does, and this computer's own proxy might go to evil.test.
        if not HOST_NAME.fullmatch(host) or is_address(host):
            return None
        covering = [name for name in self.all if name.covers(host, port)]
        return next((name for name in covering if name.is_own), covering[0] if covering else None)

    def describe(self) -> str:
        """Return the names as a text for the user."""
        return ", ".join(str(name) for name in self.all)


def is_address(host: str) -> bool:
    """Return whether this is an address in one of the forms that a system's resolver takes for one, not a name."""
    text = host.strip("[]")
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        # "127.1", "0x7f000001" and "2130706433" are 127.0.0.1 for inet_aton, and so for getaddrinfo.
        last = text.rpartition(".")[2]
        return last.isdigit() or last[:2] == "0x" or not text
    return True


def is_public(address: str) -> bool:
    """Return whether an address belongs to the internet: not to a private network, this computer or a link."""
    found = ipaddress.ip_address(address.partition("%")[0])
    inner: ipaddress.IPv4Address | ipaddress.IPv6Address = found
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or found
        if found in NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return inner.is_global and not inner.is_multicast
