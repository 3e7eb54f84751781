"""Host keys: known, new, or changed."""

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


class Verdict(Enum):
    """What known_hosts says of a key."""

    KNOWN = "known"
    NEW = "new"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class KnownKey:
    """One line of known_hosts that speaks of the host."""

    file: Path
    line: int
    kind: str
    key: bytes
    revoked: bool = False


def known_keys(target: Target) -> list[KnownKey]:
    """Return what the user's and the system's known_hosts files say of the target."""
    found = []
    for file in target.known_hosts:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        found += [entry for entry in _entries(file, text) if _matches(entry[0], target.known_as)]
    return [known for _, known in found]


def _entries(file: Path, text: str) -> list[tuple[str, KnownKey]]:
    # Parsed here and not by paramiko.HostKeys: that drops lines with a marker, and a revoked key must not look new.
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


def _matches(names: str, wanted: str) -> bool:
    # Wildcards and negation as in sshd(8); paramiko.HostKeys compares whole names only.
    found = False
    for name in names.split(","):
        if name.startswith("|1|"):
            found |= hmac.compare_digest(paramiko.HostKeys.hash_host(wanted, name), name)
        elif name.startswith("!"):
            if fnmatch.fnmatchcase(wanted.lower(), _pattern(name[1:])):
                return False
        else:
            found |= fnmatch.fnmatchcase(wanted.lower(), _pattern(name))
    return found


def _pattern(name: str) -> str:
    return name.lower().replace("[", "[[]")  # [host]:port is no character class


def judge(known: list[KnownKey], kind: str, key: bytes) -> Verdict:
    """Compare the key a host shows with what is known of it."""
    same = [entry for entry in known if entry.key == key]
    if any(entry.revoked for entry in same):
        return Verdict.REVOKED
    if same:
        return Verdict.KNOWN
    return Verdict.CHANGED if any(not entry.revoked for entry in known) else Verdict.NEW


def preferred_kinds(known: list[KnownKey], supported: tuple[str, ...]) -> tuple[str, ...]:
    """Put the kinds of key that are known first, so that a host with several shows the one we can check."""
    kinds = {entry.kind for entry in known if not entry.revoked}
    if "ssh-rsa" in kinds:  # the key's name; its signatures go by these
        kinds |= {"rsa-sha2-512", "rsa-sha2-256"}
    return tuple(sorted(supported, key=lambda kind: kind not in kinds))


def verify(target: Target, key: paramiko.PKey, prompter: Prompter, *, accept_new: bool) -> bool:
    """Accept the host key or raise HostKeyError; returns True when it was new and has been written down."""
    known = known_keys(target)
    verdict = judge(known, key.get_name(), key.asbytes())
    if verdict is Verdict.KNOWN:
        return False
    if verdict is Verdict.NEW:
        shown = NewHostKey(target.known_as, target.host, key.get_name(), key.fingerprint)
        if not accept_new and not prompter.accept_host_key(shown):
            raise HostKeyError(
                f"The host key of {target.known_as} was not accepted.",
                "Ask whoever runs the host for its fingerprint, then connect again.",
            )
        return _remember(target, key)
    if verdict is Verdict.REVOKED:
        raise HostKeyError(
            f"The host key of {target.known_as} has been revoked ({key.fingerprint}).",
            "Somebody may be listening in. Ask whoever runs the host.",
        )
    entry = next(entry for entry in known if not entry.revoked)
    raise HostKeyError(
        f"The host key of {target.known_as} has changed: it is now {key.get_name()} {key.fingerprint}, "
        f"and line {entry.line} of {entry.file} holds another.",
        f"Somebody may be listening in. If the machine was reinstalled, remove the old key: "
        f'ssh-keygen -f "{entry.file}" -R "{target.known_as}"',
    )


def _remember(target: Target, key: paramiko.PKey) -> bool:
    # Appended, never rewritten: the file is the user's, with comments and markers of their own.
    file = target.known_hosts[0]
    line = f"{target.known_as} {key.get_name()} {key.get_base64()}\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with file.open("a+b") as stream:
            if stream.tell() and not file.read_bytes().endswith(b"\n"):
                stream.write(b"\n")
            stream.write(line.encode())
    except OSError:
        return False
    return True
