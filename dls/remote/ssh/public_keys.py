"""Public keys and certificates, as they travel in the protocol and stand in `.pub` files: pure."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from dls.remote.ssh.key_types import CERTIFICATE, KEY_FIELDS, USER_CERTIFICATE
from dls.remote.ssh.wire import Reader, string

FIELDS = {**KEY_FIELDS, "ssh-dss": 4}
"""How many strings hold a key of each kind, with one that no OpenSSH takes from a host any more."""
SECURITY_KEY = "sk-"
"""Beginning of the name of each kind of key that lies on a security key (FIDO)."""


@dataclass(frozen=True)
class PublicKey:
    """A public key or a certificate, as it travels in the protocol."""

    blob: bytes

    @property
    def kind(self) -> str:
        """Name of the kind of key or certificate, such as `ssh-ed25519`; empty for data that are no key."""
        try:
            return Reader(self.blob).string().decode("ascii")
        except ValueError:  # also UnicodeDecodeError
            return ""

    @property
    def is_certificate(self) -> bool:
        """Whether this is a certificate."""
        return self.kind.endswith(CERTIFICATE)

    @property
    def is_security_key(self) -> bool:
        """Whether the private half lies on a security key (FIDO), whatever file stands for it."""
        return self.kind.startswith(SECURITY_KEY)

    @property
    def certified(self) -> PublicKey:
        """The key in a user's certificate (OpenSSH's PROTOCOL.certkeys); raises ValueError for anything else."""
        reader = Reader(self.blob)
        name = reader.string().decode("ascii")
        kind = kind_of_key(name)
        if kind == name or kind not in FIELDS:
            raise ValueError("no certificate")
        reader.string()  # the nonce
        fields = [string(reader.string()) for _ in range(FIELDS[kind])]
        reader.take(8)  # the serial number
        if reader.number(4) != USER_CERTIFICATE:
            raise ValueError("a host's certificate")
        return PublicKey(string(kind.encode()) + b"".join(fields))


def rsa_bits(key: PublicKey) -> int:
    """Return the length of an RSA key, or of the one in a user's certificate, in bits; 0 for anything else."""
    try:
        reader = Reader((key.certified if key.is_certificate else key).blob)
        if reader.string() != b"ssh-rsa":
            return 0
        reader.string()  # the exponent
        return int.from_bytes(reader.string(), "big").bit_length()
    except ValueError:
        return 0


def kind_of_key(kind: str) -> str:
    """Return the kind of the key in a kind of certificate; the kind itself for a key."""
    base = kind.removesuffix(CERTIFICATE)
    return f"{base}@openssh.com" if base != kind and base.startswith(SECURITY_KEY) else base


def parse_public_key(text: str) -> PublicKey | None:
    """Return the key or certificate in the text of a `.pub` file; None where there is none."""
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0].startswith("#"):
            continue
        try:
            key = PublicKey(base64.b64decode(words[1], validate=True))
        except (binascii.Error, ValueError):
            continue
        if key.kind == words[0]:
            return key
    return None
