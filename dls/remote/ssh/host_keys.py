"""Check of the host key: it is known, new, changed or revoked according to the known_hosts files."""

from __future__ import annotations

import fnmatch
import hmac
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import paramiko

from dls.errors import HostKeyError
from dls.remote.ssh.prompts import NewHostKey, Prompter
from dls.remote.ssh.target import Target


class KeyStatus(Enum):
    """Status of a host key according to known_hosts."""

    KNOWN = "known"
    NEW = "new"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KnownKey:
    """One line of known_hosts that lists a key of the host."""

    file: Path
    line: int
    key_type: str
    key: bytes
    revoked: bool = False


def known_keys(target: Target) -> list[KnownKey]:
    """Return the keys that the user's and the system's known_hosts files list for the target."""
    found = []
    for file in (*target.known_hosts, *target.global_known_hosts):
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        found += [entry for entry in _parse_entries(file, text) if _matches(entry[0], target.known_hosts_name)]
    return [known for _, known in found]


def _parse_entries(file: Path, text: str) -> list[tuple[str, KnownKey]]:
    # Not parsed by paramiko.HostKeys: it drops lines with a marker, and then a revoked key would look new.
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or marker == "@cert-authority":
            continue
        try:
            entry = paramiko.hostkeys.HostKeyEntry.from_line(" ".join(words[:3]), number)
        except (paramiko.SSHException, paramiko.hostkeys.InvalidHostKey, ValueError):
            continue
        if entry is not None and entry.key is not None:
            key = KnownKey(file, number, entry.key.get_name(), entry.key.asbytes(), marker == "@revoked")
            found.append((words[0], key))
    return found


def _matches(names: str, host: str) -> bool:
    # Wildcards and negation as in sshd(8); paramiko.HostKeys compares only whole names.
    found = False
    for name in names.split(","):
        if name.startswith("|1|"):
            found |= hmac.compare_digest(paramiko.HostKeys.hash_host(host, name), name)
        elif name.startswith("!"):
            if fnmatch.fnmatchcase(host.lower(), _pattern(name[1:])):
                return False
        else:
            found |= fnmatch.fnmatchcase(host.lower(), _pattern(name))
    return found


def _pattern(name: str) -> str:
    return name.lower().replace("[", "[[]")  # the brackets of [host]:port are not a character class


def key_status(known: list[KnownKey], key: bytes) -> KeyStatus:
    """Compare the key that a host presents with the keys that known_hosts lists for it."""
    same = [entry for entry in known if entry.key == key]
    if any(entry.revoked for entry in same):
        return KeyStatus.REVOKED
    if same:
        return KeyStatus.KNOWN
    return KeyStatus.CHANGED if any(not entry.revoked for entry in known) else KeyStatus.NEW


def order_key_types(known: list[KnownKey], supported: tuple[str, ...]) -> tuple[str, ...]:
    """Put the known key types first, so that a host with several keys presents one that can be checked."""
    types = {entry.key_type for entry in known if not entry.revoked}
    if "ssh-rsa" in types:  # the type of the key; its signature algorithms have these names
        types |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(sorted(supported, key=lambda key_type: key_type not in types))


def verify(target: Target, key: paramiko.PKey, prompter: Prompter, *, accept_new: bool) -> bool:
    """Accept the host key or raise HostKeyError; returns True when it was new and is in known_hosts now."""
    known = known_keys(target)
    status = key_status(known, key.asbytes())
    if status is KeyStatus.KNOWN:
        return False
    if status is KeyStatus.NEW:
        new_key = NewHostKey(target.known_hosts_name, target.host, key.get_name(), key.fingerprint)
        if not accept_new and not prompter.accept_host_key(new_key):
            raise HostKeyError(
                f"The host key of {target.known_hosts_name} was not accepted.",
                "Ask whoever runs the host for its fingerprint, then connect again.",
            )
        return _append_to_known_hosts(target, key)
    if status is KeyStatus.REVOKED:
        raise HostKeyError(
            f"The host key of {target.known_hosts_name} has been revoked ({key.fingerprint}).",
            "Somebody may be listening in. Ask whoever runs the host.",
        )
    entry = next(entry for entry in known if not entry.revoked)
    raise HostKeyError(
        f"The host key of {target.known_hosts_name} has changed: it is now {key.get_name()} {key.fingerprint}, "
        f"and line {entry.line} of {entry.file} holds another.",
        f"Somebody may be listening in. If the machine was reinstalled, remove the old key: "
        f'ssh-keygen -f "{entry.file}" -R "{target.known_hosts_name}"',
    )


def _append_to_known_hosts(target: Target, key: paramiko.PKey) -> bool:
    # The file is never rewritten: it is the user's, with comments and markers that we do not write.
    file = target.known_hosts[0]
    line = f"{target.known_hosts_name} {key.get_name()} {key.get_base64()}\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.open("a+b") as stream:
            if stream.tell() and not file.read_bytes().endswith(b"\n"):
                stream.write(b"\n")
            stream.write(line.encode())
    except OSError:
        return False
    return True
