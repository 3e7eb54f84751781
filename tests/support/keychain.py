"""A keychain in a file, for tests: a backend of the keyring library."""

from __future__ import annotations

import json
import os
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError


class FileKeychain(KeyringBackend):
    """Keeps passwords in the file that `DLS_TEST_KEYCHAIN` names."""

    priority = 1.0

    @property
    def _file(self) -> Path:
        return Path(os.environ["DLS_TEST_KEYCHAIN"])

    def _read(self) -> dict[str, str]:
        return dict(json.loads(self._file.read_text())) if self._file.exists() else {}

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service} {username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._file.write_text(json.dumps({**self._read(), f"{service} {username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        kept = self._read()
        if kept.pop(f"{service} {username}", None) is None:
            raise PasswordDeleteError("Password not found")
        self._file.write_text(json.dumps(kept))
