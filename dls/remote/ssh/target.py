"""Where to log in: `[user@]host[:port]` and what the SSH configuration says of it."""

from __future__ import annotations

import getpass
import glob
from dataclasses import dataclass
from pathlib import Path

import paramiko

from dls.errors import TargetError

DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
"""The key files OpenSSH tries by itself and paramiko can read, in OpenSSH's order of strength."""


@dataclass(frozen=True)
class Target:
    """A host to log in to, with everything that the options and the configuration say of it."""

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
    """Hosts to go through, nearest first, each `[user@]host[:port]`."""

    @property
    def known_as(self) -> str:
        """The name under which known_hosts lists this host."""
        name = self.host_key_alias or self.host
        return name if self.port == 22 or self.host_key_alias else f"[{name}]:{self.port}"

    def __str__(self) -> str:
        port = "" if self.port == 22 else f":{self.port}"
        return f"{self.user}@{self.label}{port}"


@dataclass(frozen=True)
class Spec:
    """The three parts of what the user typed."""

    user: str
    host: str
    port: int | None


def parse(text: str) -> Spec:
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
            raise _not_a_target(text)
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    else:
        host = rest
    if not host or host.startswith("-") or any(c.isspace() for c in host + user):
        raise _not_a_target(text)
    return Spec(user, host, parse_port(port, text) if port else None)


def parse_port(text: str, where: str) -> int:
    """Return the port number in the text; `where` is quoted in the error."""
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise TargetError(f"{where!r} has no valid port: {text!r}.", "A port is a number from 1 to 65535.")


def _not_a_target(text: str) -> TargetError:
    return TargetError(f"{text!r} is not a host to log in to.", "Write it as [user@]host[:port].")


def load_config(path: Path | None) -> paramiko.SSHConfig:
    """Read an SSH configuration file; without a path the user's own, which may be missing."""
    chosen = path or Path.home() / ".ssh" / "config"
    if path is None and not chosen.is_file():
        return paramiko.SSHConfig()
    try:
        return paramiko.SSHConfig.from_text(_with_includes(chosen.read_text(), chosen.parent))
    except OSError as error:
        raise TargetError(
            f"The SSH configuration {chosen} can't be read: {error.strerror}.", "Name another one with -F."
        ) from error
    except (paramiko.ConfigParseError, UnicodeDecodeError) as error:
        raise TargetError(
            f"The SSH configuration {chosen} can't be understood: {error}.",
            "Mend that line, or name another one with -F.",
        ) from error


def _with_includes(text: str, folder: Path, above: tuple[str, ...] = ()) -> str:
    """Put the files that `Include` names in its place, as in ssh_config(5); paramiko passes over it in silence."""
    lines = []
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split()
        if not words or words[0].lower() != "include":
            lines.append(line)
            continue
        for word in words[1:]:
            pattern = Path(word.strip('"')).expanduser()
            for name in sorted(glob.glob(str(folder / pattern))):  # noqa: PTH207 - the pattern may be absolute
                if name not in above:
                    lines.append(_with_includes(Path(name).read_text(), folder, (*above, name)))
    return "\n".join(lines)


def resolve(
    text: str,
    config: paramiko.SSHConfig,
    *,
    identities: tuple[Path, ...] = (),
    port: int | None = None,
    home: Path | None = None,
    local_user: str | None = None,
) -> Target:
    """Return the target that the text, the options and the configuration describe together.

    Options win over the text, the text over the configuration, that over the defaults, as in OpenSSH.
    """
    spec = parse(text)
    for identity in identities:
        if not identity.is_file():
            raise TargetError(f"There is no key file {identity}.", "Check the path given with -i.")
    home = home or Path.home()
    said = _lookup(config, spec.host)
    ssh = home / ".ssh"
    from_config = [_expand(name, home) for name in _names(said.get("identityfile"))]
    defaults = [] if from_config else [ssh / name for name in DEFAULT_IDENTITIES]
    hosts_files = str(said.get("userknownhostsfile", "")).split()
    own_hosts = [_expand(name, home) for name in hosts_files] or [ssh / "known_hosts"]
    return Target(
        label=spec.host,
        host=str(said.get("hostname", spec.host)),
        port=port or spec.port or parse_port(str(said.get("port", "22")), f"Port of {spec.host}"),
        user=spec.user or str(said.get("user", "")) or local_user or getpass.getuser(),
        identities=tuple(dict.fromkeys([*identities, *from_config, *defaults])),
        identities_only=str(said.get("identitiesonly", "no")).lower() == "yes",
        known_hosts=(*own_hosts, Path("/etc/ssh/ssh_known_hosts")),
        host_key_alias=str(said.get("hostkeyalias", "")),
        jumps=_jumps(str(said.get("proxyjump", "none"))),
    )


def _lookup(config: paramiko.SSHConfig, host: str) -> dict[str, object]:
    try:
        said: dict[str, object] = dict(config.lookup(host))
    except paramiko.ConfigParseError as error:
        raise TargetError(
            f"The SSH configuration of {host} can't be understood: {error}.", "Name another one with -F."
        ) from error
    if str(said.get("proxycommand", "none")).lower() != "none":
        raise TargetError(
            f"The SSH configuration of {host} uses ProxyCommand, which dls does not run.",
            "Write the way as ProxyJump, or name another configuration with -F.",
        )
    return said


def _jumps(value: str) -> tuple[str, ...]:
    return () if value.lower() == "none" else tuple(part.strip() for part in value.split(","))


def _expand(name: str, home: Path) -> Path:
    return home / name[2:] if name.startswith("~/") else Path(name.strip('"'))


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else []
