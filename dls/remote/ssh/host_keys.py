"""The decision on a host key: which kinds are proposed, what known_hosts says of the one that comes, and what follows.

The order of the steps is that of OpenSSH's `check_host_key` and `order_hostkeyalgs`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import paramiko

from dls.errors import HostKeyError
from dls.remote.ssh import known_hosts
from dls.remote.ssh.host_certificates import HostCertificate, find_fault, is_certificate, parse
from dls.remote.ssh.key_types import CERTIFICATE
from dls.remote.ssh.known_hosts import Entry, Marker
from dls.remote.ssh.prompts import NewHostKey, Prompter
from dls.remote.ssh.public_keys import PublicKey, rsa_bits
from dls.remote.ssh.target import Target
from dls.remote.ssh.wire import MalformedError

ALGORITHMS = tuple(
    key_type + suffix
    for suffix in (CERTIFICATE, "")
    for key_type in (
        "ssh-ed25519",
        *(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)),
        "rsa-sha2-512",
        "rsa-sha2-256",
    )
)
"""The host key algorithms that paramiko has, in the order of OpenSSH's default."""


class KeyStatus(Enum):
    """What known_hosts says of a key that a host presents."""

    KNOWN = "known"
    NEW = "new"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Presented:
    """The key that a host presents, and the certificate about it if there is one."""

    key: bytes
    certificate: HostCertificate | None = None
    fault: str = ""
    """What is wrong with the certificate where it can't be read."""


@dataclass(frozen=True)
class Finding:
    """The status of a key that a host presents, with what led to it."""

    status: KeyStatus
    entry: Entry | None = None
    """The line of known_hosts that decided."""
    fault: str = ""
    """Why the host's certificate was of no use, as the end of "its certificate …"; empty where it was, or is none."""


@dataclass(frozen=True)
class Acceptance:
    """A host key that was accepted."""

    note: str = ""
    """What became of a new key, as the end of "its host key …"; empty for a known one."""


def known_keys(target: Target) -> list[Entry]:
    """Return the lines of the user's and the system's known_hosts files that are about the target."""
    return known_hosts.read(_files(target), target.known_hosts_name)


def _files(target: Target) -> tuple[Path, ...]:
    return (*target.known_hosts, *target.global_known_hosts)


def order_algorithms(known: Sequence[Entry], allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the host key algorithms to propose: first those of which known_hosts has a key that can be checked.

    A host with several keys presents the first kind that it has. `allowed` is what HostKeyAlgorithms allows, empty
    for OpenSSH's own list. Where an authority is known, certificates come first.
    """
    types = {entry.key_type for entry in known if entry.marker is Marker.NONE}
    has_authority = any(entry.marker is Marker.AUTHORITY for entry in known)

    def is_later(algorithm: str) -> bool:
        plain = algorithm.removesuffix(CERTIFICATE)
        if ("ssh-rsa" if plain.startswith("rsa-") else plain) in types:
            return False
        return not (has_authority and is_certificate(algorithm))

    return tuple(sorted((name for name in allowed or ALGORITHMS if name in ALGORITHMS), key=is_later))


def look_up(target: Target, presented: Presented, now: float) -> Finding:
    """Find what the known_hosts files say of the key that the target presents; `now` is in seconds since 1970.

    A host on another port than 22 may be listed without its port. A certificate that is of no use leaves the key.
    """
    here = known_keys(target)
    is_listed_by_port = target.known_hosts_name != (target.host_key_alias or target.host)
    bare = known_hosts.read(_files(target), target.host) if is_listed_by_port else []
    fault = presented.fault
    for finding in _findings(presented, here, bare, (target.host_key_alias or target.host).lower(), now):
        if finding.status in (KeyStatus.KNOWN, KeyStatus.REVOKED):
            return finding
        fault = fault or finding.fault
    return replace(compare_key(here, presented.key), fault=fault)


def _findings(
    presented: Presented, here: Sequence[Entry], bare: Sequence[Entry], host: str, now: float
) -> Iterator[Finding]:
    """Yield what OpenSSH looks at in turn, with the lines for the host at its port and those without a port."""
    if presented.certificate is not None:
        yield compare_certificate(here, presented.key, presented.certificate, host, now)
        if not any(entry.marker is Marker.AUTHORITY for entry in here):
            yield compare_certificate(bare, presented.key, presented.certificate, host, now)
            yield compare_key(bare, presented.key)
    plain = compare_key(here, presented.key)
    yield plain
    if plain.status is KeyStatus.NEW:
        yield compare_key(bare, presented.key)


def compare_key(entries: Sequence[Entry], key: bytes) -> Finding:
    """Compare a key with the ones that known_hosts lists for the host."""
    if revoked := _find(entries, Marker.REVOKED, key):
        return Finding(KeyStatus.REVOKED, revoked)
    if same := _find(entries, Marker.NONE, key):
        return Finding(KeyStatus.KNOWN, same)
    other = next((entry for entry in entries if entry.marker is Marker.NONE), None)
    return Finding(KeyStatus.CHANGED, other) if other else Finding(KeyStatus.NEW)


def compare_certificate(
    entries: Sequence[Entry], key: bytes, certificate: HostCertificate, host: str, now: float
) -> Finding:
    """Compare a certificate with the authorities that known_hosts lists for the host; NEW where it is of no use."""
    for each in (key, certificate.authority):
        if revoked := _find(entries, Marker.REVOKED, each):
            return Finding(KeyStatus.REVOKED, revoked)
    authority = _find(entries, Marker.AUTHORITY, certificate.authority)
    if authority is None:
        is_other = any(entry.marker is Marker.AUTHORITY for entry in entries)
        return Finding(KeyStatus.NEW, fault="is of an authority that known_hosts does not name" if is_other else "")
    fault = find_fault(certificate, host, now)
    return Finding(KeyStatus.NEW, fault=fault) if fault else Finding(KeyStatus.KNOWN, authority)


def _find(entries: Sequence[Entry], marker: Marker, key: bytes) -> Entry | None:
    return next((entry for entry in entries if entry.marker is marker and entry.key == key), None)


def read_presented(key: paramiko.PKey) -> Presented:
    """Return what paramiko received as the host's key."""
    blob = getattr(key, "public_blob", None)
    if blob is None or not is_certificate(blob.key_type):
        return Presented(key.asbytes())
    try:
        return Presented(key.asbytes(), parse(blob.key_blob))
    except MalformedError as error:
        return Presented(key.asbytes(), fault=f"can't be read: {error}")


def verify(target: Target, key: paramiko.PKey, prompter: Prompter, *, accept_new: bool) -> Acceptance:
    """Accept the host key, or raise HostKeyError; `accept_new` is an option, and wins over StrictHostKeyChecking."""
    _check_length(target, key)
    strictness = "accept-new" if accept_new else target.strict_host_key_checking
    finding = look_up(target, read_presented(key), time.time())
    if finding.status is KeyStatus.KNOWN:
        return Acceptance()
    if finding.status is KeyStatus.REVOKED:
        # Whatever StrictHostKeyChecking is: sshd(8) says that such a key is never accepted.
        raise _revoked(target, key, finding)
    if finding.status is KeyStatus.NEW:
        return _accept_new(target, key, prompter, strictness, finding)
    # With StrictHostKeyChecking no, OpenSSH goes on and disables all forwarding; dls would send images there.
    raise _changed(target, key, finding)


def _check_length(target: Target, key: paramiko.PKey) -> None:
    """Raise HostKeyError for an RSA key that is shorter than RequiredRSASize wants, whatever known_hosts says."""
    bits = rsa_bits(PublicKey(key.asbytes()))
    if 0 < bits < target.required_rsa_bits:
        raise HostKeyError(
            f"The host key of {target.known_hosts_name} is an RSA key of {bits} bits, and RequiredRSASize of the SSH "
            f"configuration is {target.required_rsa_bits}.",
            "Ask whoever runs the host for a key of today: ssh-keygen -A makes one of each kind.",
        )


def _accept_new(
    target: Target, key: paramiko.PKey, prompter: Prompter, strictness: str, finding: Finding
) -> Acceptance:
    """Accept a key that no file lists, as StrictHostKeyChecking wants it, and add it to the user's first file."""
    name, certificate = target.known_hosts_name, _describe_fault(finding)
    unknown = f"The host key of {name} is not known ({key.get_name()} {key.fingerprint})"
    if not target.known_hosts:
        raise HostKeyError(
            f"{unknown}, and UserKnownHostsFile is none.{certificate}",
            "Name a file there: a new key is accepted only where it can be kept.",
        )
    if strictness == "yes":
        raise HostKeyError(
            f"{unknown}, and StrictHostKeyChecking is yes.{certificate}",
            f"If that is the right key, --accept-new-host-key adds it to {target.known_hosts[0]}.",
        )
    if certificate:
        prompter.tell(f"{name}:{certificate}")
    if strictness == "ask":
        others = tuple(known_hosts.names_of(_files(target), key.asbytes()))
        if not prompter.accept_host_key(NewHostKey(name, target.host, key.get_name(), key.fingerprint, others)):
            raise HostKeyError(
                f"The host key of {name} was not accepted.",
                "Ask whoever runs the host for its fingerprint, then connect again.",
            )
    return Acceptance(_keep(target, key))


def _describe_fault(finding: Finding) -> str:
    return f" Its certificate {finding.fault}." if finding.fault else ""


def _keep(target: Target, key: paramiko.PKey) -> str:
    """Add the key to the user's first known_hosts file, and return what became of it."""
    name, file = target.known_hosts_name, target.known_hosts[0]
    if known_hosts.UNSAFE.search(target.host_key_alias or target.host):
        return f"is not kept, since {file} can't hold this name"
    line = known_hosts.format_line(name, key.get_name(), key.asbytes(), hashed=target.hash_known_hosts)
    try:
        is_kept = known_hosts.append(file, line)
    except OSError as error:
        return f"could not be added to {file} ({error.strerror or error})"
    return "is now known" if is_kept else f"is not kept, since it would go to {file}"


def _revoked(target: Target, key: paramiko.PKey, finding: Finding) -> HostKeyError:
    entry = finding.entry
    assert entry is not None
    whose = "The host key" if entry.key == key.asbytes() else "The authority that signed the certificate"
    return HostKeyError(
        f"{whose} of {target.known_hosts_name} has been revoked "
        f"({key.fingerprint}): line {entry.line} of {entry.file} says so.",
        "Somebody may be listening in. Ask whoever runs the host.",
    )


def _changed(target: Target, key: paramiko.PKey, finding: Finding) -> HostKeyError:
    entry = finding.entry
    assert entry is not None
    return HostKeyError(
        f"The host key of {target.known_hosts_name} has changed: it is now {key.get_name()} {key.fingerprint}, "
        f"and line {entry.line} of {entry.file} holds another.{_describe_fault(finding)}",
        f"Somebody may be listening in. If the machine was reinstalled, remove the old key: "
        f'ssh-keygen -f "{entry.file}" -R "{target.known_hosts_name}"',
    )
