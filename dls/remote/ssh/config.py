"""The SSH configuration (ssh_config(5)), and the target that it defines together with the options."""

from __future__ import annotations

import getpass
import glob
from pathlib import Path

import paramiko

from dls.errors import TargetError
from dls.remote.ssh.exceptions import configuration_error
from dls.remote.ssh.target import Target, parse_destination, parse_port

DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
"""Key files that OpenSSH tries by default and paramiko can read, in OpenSSH's order of strength."""


def load_config(path: Path | None) -> paramiko.SSHConfig:
    """Read an SSH configuration file; without a path the user's own, which may be missing."""
    chosen = path or Path.home() / ".ssh" / "config"
    if path is None and not chosen.is_file():
        return paramiko.SSHConfig()
    try:
        return paramiko.SSHConfig.from_text(_expand_includes(chosen.read_text(), chosen.parent))
    except OSError as error:
        raise TargetError(
            f"The SSH configuration {chosen} can't be read: {error.strerror}.", "Name another one with -F."
        ) from error
    except (paramiko.ConfigParseError, UnicodeDecodeError) as error:
        raise configuration_error(str(chosen), error) from error


def _expand_includes(text: str, folder: Path, parents: tuple[str, ...] = ()) -> str:
    """Replace each `Include` line by the files it names, as ssh_config(5) defines; paramiko ignores such lines."""
    lines = []
    for line in text.splitlines():
        words = line.replace("=", " ", 1).split()
        if not words or words[0].lower() != "include":
            lines.append(line)
            continue
        for word in words[1:]:
            pattern = Path(word.strip('"')).expanduser()
            for name in sorted(glob.glob(str(folder / pattern))):  # noqa: PTH207 - the pattern may be absolute
                if name not in parents:
                    lines.append(_expand_includes(Path(name).read_text(), folder, (*parents, name)))
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
    """Return the target that the text `[user@]host[:port]`, the options and the configuration define together.

    Options win over the text, the text over the configuration, that over the defaults, as in OpenSSH. Raises
    TargetError when one of them makes no sense.
    """
    destination = parse_destination(text)
    for identity in identities:
        if not identity.is_file():
            raise TargetError(f"There is no key file {identity}.", "Check the path given with -i.")
    home = home or Path.home()
    host = destination.host
    fields = _lookup(config, host)
    return Target(
        label=host,
        host=str(fields.get("hostname", host)),
        port=port or destination.port or parse_port(str(fields.get("port", "22")), f"Port of {host}"),
        user=destination.user or str(fields.get("user", "")) or local_user or getpass.getuser(),
        identities=tuple(dict.fromkeys([*identities, *_identity_files(fields, home)])),
        identities_only=str(fields.get("identitiesonly", "no")).lower() == "yes",
        known_hosts=_known_hosts_files(fields, home),
        host_key_alias=str(fields.get("hostkeyalias", "")),
        jumps=_split_jumps(str(fields.get("proxyjump", "none"))),
    )


def _lookup(config: paramiko.SSHConfig, host: str) -> dict[str, object]:
    """Return the configuration's fields for a host, their names in lower case."""
    try:
        fields: dict[str, object] = dict(config.lookup(host))
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize) as error:
        raise configuration_error(f"of {host}", error) from error
    if str(fields.get("proxycommand", "none")).lower() != "none":
        raise TargetError(
            f"The SSH configuration of {host} uses ProxyCommand, which dls does not run.",
            "Use ProxyJump instead, or name another configuration with -F.",
        )
    return fields


def _identity_files(fields: dict[str, object], home: Path) -> list[Path]:
    names = fields.get("identityfile")
    if isinstance(names, list) and names:
        return [_expand_home(str(name), home) for name in names]
    return [home / ".ssh" / name for name in DEFAULT_IDENTITIES]


def _known_hosts_files(fields: dict[str, object], home: Path) -> tuple[Path, ...]:
    names = str(fields.get("userknownhostsfile", "~/.ssh/known_hosts")).split() or ["~/.ssh/known_hosts"]
    return (*(_expand_home(name, home) for name in names), Path("/etc/ssh/ssh_known_hosts"))


def _split_jumps(value: str) -> tuple[str, ...]:
    return () if value.lower() == "none" else tuple(part.strip() for part in value.split(","))


def _expand_home(name: str, home: Path) -> Path:
    return home / name[2:] if name.startswith("~/") else Path(name.strip('"'))
