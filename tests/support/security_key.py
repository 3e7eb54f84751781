"""A security key in software: a provider for OpenSSH, compiled from the C file beside this one.

Needs a C compiler and OpenSSL's headers (Debian's names: gcc, libc6-dev, libssl-dev).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.askpass import Askpass

SOURCE = Path(__file__).with_suffix(".c")
PIN = "60415937"
"""The security key's PIN, as in the C file."""


@functools.cache
def missing() -> str | None:
    """Return what keeps the provider from being made; None where it can be made."""
    if shutil.which("cc") is None:
        return "there is no C compiler"
    found = subprocess.run(
        ["cc", "-E", "-xc", "-"], input="#include <openssl/evp.h>\n", capture_output=True, text=True, check=False
    )
    return None if found.returncode == 0 else "OpenSSL's headers are missing"


def provider(folder: Path) -> Path:
    """Compile the provider into the folder; returns its path, for SecurityKeyProvider."""
    made = folder / "security_key.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-o", str(made), str(SOURCE), "-lcrypto"], check=True)
    return made


def make_key(path: Path, provider: Path, *options: str) -> Path:
    """Make a key on the security key; returns the file that refers to it."""
    command = ["ssh-keygen", "-q", "-t", "ed25519-sk", "-N", "", "-w", str(provider), "-f", str(path), *options]
    with tempfile.TemporaryDirectory(prefix="dls-askpass-") as folder:
        environment = {**os.environ, **Askpass(Path(folder), {"PIN": PIN}).env}
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    return path
