"""A smart card in software: SoftHSM's PKCS#11 module with one key behind a PIN.

Needs softhsm2 and opensc (Debian's names).
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

PIN = "83105296"
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")


@dataclass(frozen=True)
class SmartCard:
    """A card with one key."""

    folder: Path
    module: str
    """Path of the PKCS#11 module, for PKCS11Provider."""

    @property
    def env(self) -> dict[str, str]:
        """The environment in which the module finds the card."""
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    @property
    def public_key(self) -> str:
        """The line of authorized_keys for the card's key."""
        return self._run(["ssh-keygen", "-D", self.module])

    def _run(self, command: list[str]) -> str:
        environment = {**os.environ, **self.env}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    def make(self, kind: str) -> None:
        """Format the card and make its key there."""
        (self.folder / "tokens").mkdir()
        tokens = f"directories.tokendir = {self.folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
        (self.folder / "softhsm2.conf").write_text(tokens)
        new = ["--init-token", "--free", "--label", "lab", "--pin", PIN, "--so-pin", "4321"]
        self._run(["softhsm2-util", *new])
        key = ["--login", "--pin", PIN, "--keypairgen", "--key-type", kind, "--label", "labkey", "--id", "01"]
        self._run(["pkcs11-tool", "--module", self.module, "--token-label", "lab", *key])


def find_module() -> str | None:
    """Return the path of SoftHSM's module; None where it is not installed."""
    return next((path for path in MODULES if Path(path).exists()), None)


def insert(folder: Path, kind: str = "rsa:2048") -> SmartCard:
    """Make a card, with all its files in a new folder."""
    folder.mkdir()
    card = SmartCard(folder, find_module() or "libsofthsm2.so")
    card.make(kind)
    return card
