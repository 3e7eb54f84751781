"""Private key files: OpenSSH's own format, PEM and PKCS#8; what they show without a passphrase, and signatures."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from dls.remote.ssh.key_types import CERTIFICATE
from dls.remote.ssh.public_keys import PublicKey, parse_public_key
from dls.remote.ssh.wire import Reader, mpint, string

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

OPENSSH_BEGIN, OPENSSH_END = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END OPENSSH PRIVATE KEY-----"
OPENSSH_MAGIC = b"openssh-key-v1\0"
PEM_BEGIN = b"-----BEGIN "
PUTTY_BEGIN = b"PuTTY-User-Key-File-"
MAX_BYTES = 1 << 20
"""Largest key file that is read."""
DAMAGED = "it is damaged"
HASHES: dict[str, type[hashes.SHA512 | hashes.SHA256 | hashes.SHA1]] = {
    "rsa-sha2-512": hashes.SHA512,
    "rsa-sha2-256": hashes.SHA256,
    "ssh-rsa": hashes.SHA1,
}
"""Hash of each RSA signature algorithm."""
CURVE_HASHES: dict[int, type[hashes.SHA256 | hashes.SHA384 | hashes.SHA512]] = {
    256: hashes.SHA256,
    384: hashes.SHA384,
    521: hashes.SHA512,
}
"""Hash of an ECDSA signature, by the size of the curve (RFC 5656)."""


@dataclass(frozen=True)
class KeyFile:
    """What a key file shows without a passphrase."""

    path: Path
    public: PublicKey | None = None
    """None where the file hides it and there is no `.pub` file beside it."""
    private: PrivateKey | None = None
    is_locked: bool = False
    """Whether the private half needs a passphrase."""
    is_handle: bool = False
    """Whether the file stands for a key on a security key (FIDO), which alone can sign."""
    problem: str = ""
    """Why the file can't be used; empty where it can."""

    @property
    def can_sign(self) -> bool:
        """Whether the file holds a private half that we can use, after its passphrase if it has one."""
        return self.private is not None or self.is_locked


def read_key_file(path: Path) -> KeyFile:
    """Read a key file; a `.pub` file is one as well, since the agent may have its private half."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES)
    except OSError as error:
        return KeyFile(path, problem=str(error.strerror))
    try:
        return _parse(path, data)
    except UnsupportedAlgorithm:
        return KeyFile(path, problem="it is of a kind that dls does not support")
    except ValueError:  # also of cryptography
        return KeyFile(path, problem=DAMAGED)


def _parse(path: Path, data: bytes) -> KeyFile:
    if data.startswith(PUTTY_BEGIN):
        return KeyFile(path, problem="it is in PuTTY's format; PuTTYgen exports it in OpenSSH's (Conversions)")
    if OPENSSH_BEGIN in data:
        return _parse_openssh(path, data)
    if PEM_BEGIN in data and b"PRIVATE KEY-----" in data:
        # `BEGIN ENCRYPTED PRIVATE KEY` in PKCS#8, `Proc-Type: 4,ENCRYPTED` in the older format.
        if b"ENCRYPTED" in data:
            return KeyFile(path, _public_beside(path), is_locked=True)
        return _unlocked(path, serialization.load_pem_private_key(data, None))
    public = parse_public_key(data.decode(errors="replace"))
    return KeyFile(path, public, problem="" if public else "it holds no private key")


def _parse_openssh(path: Path, data: bytes) -> KeyFile:
    """Read OpenSSH's own format (its PROTOCOL.key): the public half stands there in clear."""
    text = data.partition(OPENSSH_BEGIN)[2].partition(OPENSSH_END)[0]
    try:
        content = base64.b64decode(text)
    except binascii.Error:
        raise ValueError(DAMAGED) from None
    if not content.startswith(OPENSSH_MAGIC):
        raise ValueError(DAMAGED)
    reader = Reader(content.removeprefix(OPENSSH_MAGIC))
    cipher = reader.string()
    reader.string(), reader.string()  # name and options of the key derivation
    if reader.number(4) != 1:
        raise ValueError(DAMAGED)
    public = PublicKey(reader.string())
    if public.is_security_key:
        return KeyFile(path, public, is_handle=True)
    if cipher != b"none":
        return KeyFile(path, public, is_locked=True)
    return _unlocked(path, serialization.load_ssh_private_key(data, None))


def _public_beside(path: Path) -> PublicKey | None:
    try:
        return parse_public_key(Path(f"{path}.pub").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def _unlocked(path: Path, private: object) -> KeyFile:
    if not isinstance(private, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        raise UnsupportedAlgorithm("no kind of key that SSH uses")
    encoding = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    public = parse_public_key(private.public_key().public_bytes(*encoding).decode())
    return KeyFile(path, public, private)


def unlock(file: KeyFile, passphrase: str) -> KeyFile | None:
    """Return the file with its private half; None when the passphrase is wrong.

    Raises ValueError, with a reason for the user, when it is not the passphrase that is wrong.
    """
    try:
        data = file.path.read_bytes()
        is_openssh = OPENSSH_BEGIN in data
        load = serialization.load_ssh_private_key if is_openssh else serialization.load_pem_private_key
        return _unlocked(file.path, load(data, passphrase.encode()))
    except UnsupportedAlgorithm:
        raise ValueError("it is encrypted in a way that dls does not support") from None
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
    except (ValueError, TypeError):  # cryptography raises TypeError for a passphrase that is not needed
        return None


def sign(private: PrivateKey, algorithm: str, data: bytes) -> bytes:
    """Return the signature of the data as it travels in the protocol (RFC 4253, 5656, 8332, 8709)."""
    name = algorithm.removesuffix(CERTIFICATE)
    if isinstance(private, RSAPrivateKey):
        signature = private.sign(data, padding.PKCS1v15(), HASHES[name]())
    elif isinstance(private, EllipticCurvePrivateKey):
        encoded = private.sign(data, ec.ECDSA(CURVE_HASHES[private.curve.key_size]()))
        r, s = decode_dss_signature(encoded)
        signature = mpint(r) + mpint(s)
    else:
        signature = private.sign(data)
    return string(name.encode()) + string(signature)
