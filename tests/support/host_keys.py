"""Host keys, authorities and host certificates, made by `ssh-keygen`."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path


def make_key(path: Path, *kind: str) -> str:
    """Make a key, such as `rsa -b 2048`, and return its public half as known_hosts has it: type and base64."""
    command = ["ssh-keygen", "-q", "-N", "", "-C", "", "-f", str(path), "-t", *(kind or ("ed25519",))]
    subprocess.run(command, check=True, capture_output=True)
    return public_half(path)


def public_half(path: Path) -> str:
    """Return the public half of a key: type and base64."""
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def certify(authority: Path, key: Path, *options: str, principals: str = "", user: bool = False) -> Path:
    """Let an authority sign a host's key, with further options of `ssh-keygen -s`, and return the certificate's file.

    Without principals the certificate names no host. `user` makes a user's certificate.
    """
    names = ["-n", principals] if principals else []
    kind = [] if user else ["-h"]
    command = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test", *kind, *names, *options]
    subprocess.run([*command, str(key.with_name(key.name + ".pub"))], check=True, capture_output=True)
    return key.with_name(key.name + "-cert.pub")


def blob_of(public: Path | str) -> bytes:
    """Return the bytes of a key or a certificate, from its file or from its text."""
    text = public.read_text() if isinstance(public, Path) else public
    return base64.b64decode(text.split()[1])
