"""The host to log in to, and the destination `[user@]host[:port]` that the user typed: pure, reads no files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dls.errors import TargetError

METHODS = ("gssapi-with-mic", "hostbased", "publickey", "keyboard-interactive", "password")
"""Authentication methods in OpenSSH's order of preference (PreferredAuthentications)."""


@dataclass(frozen=True)
class Algorithms:
    """The algorithms that the configuration allows, in its order; an empty tuple where it has OpenSSH's own list."""

    host_keys: tuple[str, ...] = ()
    kex: tuple[str, ...] = ()
    ciphers: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    """Signature algorithms for the user's keys (PubkeyAcceptedAlgorithms)."""


@dataclass(frozen=True)
class Target:
    """A host to log in to, with all that the options and the SSH configuration define for it."""

    label: str
    """The host as the user typed it; messages use this name."""
    host: str
    port: int
    user: str
    identities: tuple[Path, ...] = ()
    named_identities: frozenset[Path] = frozenset()
    """Those of `identities` that an option or the configuration names; the others are OpenSSH's defaults."""
    certificates: tuple[Path, ...] = ()
    """Certificate files that are not beside their key (CertificateFile)."""
    identities_only: bool = False
    identity_agent: str = "SSH_AUTH_SOCK"
    """Path of the agent's socket (IdentityAgent); `SSH_AUTH_SOCK` for the one of the environment, `none` for none."""
    known_hosts: tuple[Path, ...] = ()
    """The user's known_hosts files; a new key is added to the first one."""
    global_known_hosts: tuple[Path, ...] = ()
    """The system's known_hosts files."""
    host_key_alias: str = ""
    strict_host_key_checking: str = "ask"
    """`yes`, `accept-new`, `no` (or `off`), or `ask`."""
    hash_known_hosts: bool = False
    jumps: tuple[str, ...] = ()
    """Jump hosts to go through, nearest to this computer first, each `[user@]host[:port]`."""
    proxy_command: str = ""
    """Command whose standard input and output lead to the host (ProxyCommand), its tokens replaced."""
    methods: tuple[str, ...] = METHODS
    """Authentication methods that may be tried, in order."""
    algorithms: Algorithms = field(default_factory=Algorithms)
    required_rsa_bits: int = 0
    """Bits that an RSA key has at least, the host's and the user's (RequiredRSASize); 0 where nothing is said of it."""
    adds_keys_to_agent: bool = False
    """Whether `ssh` would add a key that it has unlocked to the agent (AddKeysToAgent)."""
    connect_timeout: float | None = None
    """Seconds to wait for the connection and the host's greeting (ConnectTimeout); None for the default."""
    alive_interval: int = 0
    """Seconds between two keep-alive requests (ServerAliveInterval); 0 for the default."""
    batch_mode: bool = False
    """Whether nothing may be asked (BatchMode)."""
    password_prompts: int = 3
    """How often a secret may be typed (NumberOfPasswordPrompts)."""
    address_family: str = "any"
    """`any`, `inet` or `inet6`."""
    bind_address: str = ""
    """Address of this computer to connect from."""
    control_path: str = ""
    """Socket of a connection that `ssh` shares (ControlPath); empty for none."""
    session_settings: tuple[str, ...] = ()
    """Settings for sessions at a terminal that this computer's `ssh` knows, with the values of a plain session."""
    not_followed: tuple[str, ...] = ()
    """Settings that are set and matter, and that neither dls nor `ssh` under it follows."""
    openssh_only: str = ""
    """The first setting that only OpenSSH's own `ssh` can honour, as a phrase; empty where there is none."""

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
