"""Host certificates in OpenSSH's format (PROTOCOL.certkeys): what one says, and whether it may be believed."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

import paramiko
from paramiko.pkey import UnknownKeyType

from dls.remote.ssh.key_types import CERTIFICATE, HOST_CERTIFICATE, KEY_FIELDS
from dls.remote.ssh.known_hosts import matches_pattern
from dls.remote.ssh.wire import MalformedError, Reader, join_strings

SIGNATURE_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""What an authority may sign with: OpenSSH's default of CASignatureAlgorithms, without SHA-1."""
SHOWN_PRINCIPALS = 5
"""Maximum number of host names that a message quotes from a certificate."""
SECURITY_KEYS = {
    "sk-ssh-ed25519@openssh.com": "ssh-ed25519",
    "sk-ecdsa-sha2-nistp256@openssh.com": "ecdsa-sha2-nistp256",
}
"""Types of keys on FIDO tokens, and the type of the key that is in them."""


@dataclass(frozen=True)
class HostCertificate:
    """What a host's certificate says."""

    kind: int
    """`HOST_CERTIFICATE` for a host's certificate."""
    principals: tuple[str, ...]
    """The names or patterns of the hosts that the certificate is for."""
    valid_after: int
    """First second of its validity, since 1970."""
    valid_before: int
    """First second after its validity, since 1970."""
    critical_options: bytes
    authority: bytes
    """The key of the authority that signed it, in the form of RFC 4253."""
    signature_algorithm: str
    signature: bytes
    signed: bytes
    """The part of the certificate that is signed: all but the signature."""


def is_certificate(algorithm: str) -> bool:
    """Whether a type of key, or a host key algorithm, is one of certificates."""
    return algorithm.endswith(CERTIFICATE)


def parse(blob: bytes) -> HostCertificate:
    """Read a certificate; raises MalformedError for anything else."""
    reader = Reader(blob)
    name = reader.text()
    key_fields = KEY_FIELDS.get(name.removesuffix(CERTIFICATE))
    if key_fields is None or not is_certificate(name):
        raise MalformedError(f"{name} is no type of certificate")
    for _ in range(1 + key_fields):  # a nonce, then the host's key
        reader.string()
    reader.number(8)  # serial number
    kind = reader.number(4)
    reader.string()  # the authority's own name for it
    principals = tuple(name.decode(errors="replace") for name in Reader(reader.string()).strings())
    valid_after, valid_before = reader.number(8), reader.number(8)
    critical_options = reader.string()
    reader.string()  # extensions, which hosts' certificates do not have
    reader.string()  # reserved
    authority = reader.string()
    signed = blob[: reader.offset]
    signature = reader.string()
    if reader.offset != len(blob):
        raise MalformedError("more follows it")
    algorithm = Reader(signature).text()
    return HostCertificate(
        kind, principals, valid_after, valid_before, critical_options, authority, algorithm, signature, signed
    )


def find_fault(certificate: HostCertificate, host: str, now: float) -> str:
    """Return why a certificate of a trusted authority does not vouch for the host, as the end of "its certificate …".

    `host` is the host's name without a port, `now` the time in seconds since 1970. Empty where it does.
    """
    if certificate.kind != HOST_CERTIFICATE:
        return "is for users and not for hosts"
    if now < certificate.valid_after:
        return f"is not valid before {_date(certificate.valid_after)}"
    if now >= certificate.valid_before:
        return f"has expired at {_date(certificate.valid_before)}"
    if not certificate.principals:
        return "names no host"
    if not any(matches_pattern(host, principal) for principal in certificate.principals):
        more = ", …" if len(certificate.principals) > SHOWN_PRINCIPALS else ""
        return f"is for {', '.join(certificate.principals[:SHOWN_PRINCIPALS])}{more}"
    if certificate.critical_options:
        return "has options that dls does not know"
    if certificate.signature_algorithm not in SIGNATURE_ALGORITHMS:
        return f"is signed with {certificate.signature_algorithm}, which is not safe"
    if not is_signed(certificate):
        return "has a wrong signature"
    return ""


def _date(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return "the end of time"


def is_signed(certificate: HostCertificate) -> bool:
    """Whether the authority that the certificate names has signed it."""
    try:
        authority, signature, signed = certificate.authority, certificate.signature, certificate.signed
        if Reader(authority).text() in SECURITY_KEYS:
            authority, signature, signed = _unwrap_security_key(authority, signature, signed)
        _, _ = Reader(signature).strings()  # paramiko overlooks what is missing or follows
        key = paramiko.PKey.from_type_string(Reader(authority).text(), authority)
        return key.verify_ssh_sig(signed, paramiko.Message(signature))
    except (ValueError, paramiko.SSHException, UnknownKeyType):  # what is no key or no signature
        return False


def _unwrap_security_key(authority: bytes, signature: bytes, signed: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the key in a FIDO token, its signature, and what it signs (OpenSSH's PROTOCOL.u2f)."""
    key, made = Reader(authority), Reader(signature)
    kind = key.text()
    plain = SECURITY_KEYS[kind].encode()
    numbers = [key.string() for _ in range(KEY_FIELDS[SECURITY_KEYS[kind]])]
    application = key.string()
    if made.text() != kind:
        raise MalformedError("its signature is of another type than its key")
    number = made.string()
    flags_and_counter = made.take(5)
    data = hashlib.sha256(application).digest() + flags_and_counter + hashlib.sha256(signed).digest()
    return join_strings(plain, *numbers), join_strings(plain, number), data
