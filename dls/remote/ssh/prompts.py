"""Questions that a person may have to answer during a login."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dls.errors import HostKeyError, LoginError


@dataclass(frozen=True)
class NewHostKey:
    """A host key that no known_hosts file lists, with the fields that OpenSSH shows."""

    known_hosts_name: str
    address: str
    key_type: str
    fingerprint: str


class CannotAsk(LoginError):
    """The login needs an answer, and there is no terminal to ask at."""


class Prompter(Protocol):
    """Asks the person at the laptop."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask whether this new host key is the right one."""

    def secret(self, prompt: str) -> str:
        """Ask for a password or a passphrase, without showing it."""

    def answer(self, prompt: str, echo: bool) -> str:
        """Ask a question of the host, such as the one for a one-time code; `echo` says whether to show the answer."""


class NoPrompter:
    """Refuses every question, with an error that names the option that would have answered it."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Raise HostKeyError."""
        raise HostKeyError(
            f"The host key of {key.known_hosts_name} is not known ({key.key_type} {key.fingerprint}), "
            "and there is no terminal to ask at.",
            "If that is the right key, run again with --accept-new-host-key.",
        )

    def secret(self, prompt: str) -> str:
        """Raise CannotAsk."""
        raise CannotAsk(
            f"The login needs a secret ({prompt.rstrip(': ')}), and there is no terminal to ask at.",
            "Load the key into your SSH agent, or name a file that holds the password with --password-file.",
        )

    def answer(self, prompt: str, echo: bool) -> str:
        """Raise CannotAsk."""
        return self.secret(prompt)
