"""The host to log in to, and the destination `[user@]host[:port]` that the user typed: pure, reads no files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dls.errors import TargetError


@dataclass(frozen=True)
class Target:
    """A host to log in to, with all that the options and the SSH configuration define for it."""

    label: str
    """The host as the user typed it; messages use this name."""
    host: str
    port: int
    user: str
    identities: tuple[Path, ...] = ()
    identities_only: bool = False
    known_hosts: tuple[Path, ...] = ()
    host_key_alias: str = ""
    jumps: tuple[str, ...] = ()
    """Jump hosts to go through, nearest to this computer first, each `[user@]host[:port]`."""

    @property
    def known_hosts_name(self) -> str:
        """The name under which known_hosts lists this host."""
        name = self.host_key_alias or self.host
        return name if self.port == 22 or self.host_key_alias else f"[{name}]:{self.port}"

    def __str__(self) -> str:
        port = "" if self.port == 22 else f":{self.port}"
        return f"{self.user}@{self.label}{port}"


@dataclass(frozen=True)
class Destination:
    """The three parts of `[user@]host[:port]`; the user is empty and the port None where they were left out."""

    user: str
    host: str
    port: int | None


def parse_destination(text: str) -> Destination:
    """Split `[ssh://][user@]host[:port]`; an IPv6 address with a port stands in brackets.

    Raises TargetError when there is no host or the port is not a number from 1 to 65535.
    """
    rest = text.strip().removeprefix("ssh://").rstrip("/")
    user, _, rest = rest.rpartition("@")
    port = ""
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
        if not bracket or (tail and not tail.startswith(":")):
            raise _invalid_destination(text)
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host = rest
    if not host or host.startswith("-") or any(c.isspace() for c in host + user):
        raise _invalid_destination(text)
    return Destination(user, host, parse_port(port, text) if port else None)


def parse_port(text: str, source: str) -> int:
    """Return the port number in the text, or raise TargetError; `source` says in the error where the text stands."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise TargetError(f"{source!r} has no valid port: {text!r}.", "A port is a number from 1 to 65535.")


def _invalid_destination(text: str) -> TargetError:
    return TargetError(f"{text!r} is not a host to log in to.", "Write it as [user@]host[:port].")
