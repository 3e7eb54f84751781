"""OpenSSH certificates for the labs: authorities, and the certificates that they sign for users and hosts."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.openssh import make_key


class Authority:
    """A certificate authority: a key that signs others."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.key = make_key(folder / name)

    @property
    def public(self) -> Path:
        """The public half, for TrustedUserCAKeys."""
        return Path(f"{self.key}.pub")

    def sign_user(self, key: Path, principal: str, *, validity: str = "always:forever", at: Path | None = None) -> Path:
        """Sign a user's key; the certificate stands beside it, or at another path."""
        return self._sign(key, at, "-n", principal, "-V", validity)

    def sign_host(self, key: Path, name: str, *, validity: str = "always:forever") -> Path:
        """Sign a host's key for this name of the host."""
        return self._sign(key, None, "-h", "-n", name, "-V", validity)

    def trust(self, pattern: str) -> str:
        """Return the line of known_hosts that trusts this authority for hosts of that pattern."""
        return f"@cert-authority {pattern} {' '.join(self.public.read_text().split()[:2])}\n"

    def _sign(self, key: Path, at: Path | None, *options: str) -> Path:
        command = ["ssh-keygen", "-q", "-s", str(self.key), "-I", "lab", *options, f"{key}.pub"]
        subprocess.run(command, check=True, capture_output=True)
        made = Path(f"{key}-cert.pub")
        return made.rename(at) if at else made


def revocation_list(path: Path, *keys: Path) -> Path:
    """Write a key revocation list (KRL) with these public keys."""
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", str(path), *map(str, keys)], check=True, capture_output=True)
    return path
