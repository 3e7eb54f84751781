"""What a person may have to be asked while logging in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dls.errors import HostKeyError, LoginError


@dataclass(frozen=True)
class NewHostKey:
    """A host key nobody has vouched for yet, as OpenSSH shows it."""

    known_as: str
    address: str
    kind: str
    fingerprint: str


class CannotAsk(LoginError):
    """There is nobody to ask."""


class Prompter(Protocol):
    """Asks the person in front of the laptop."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask whether this new host key is the right one."""

    def secret(self, prompt: str) -> str:
        """Ask for a password or a passphrase, without showing it."""

    def answer(self, prompt: str, echo: bool) -> str:
        """Ask a question of the host, such as a one-time code."""


class NoPrompter:
    """Stands where nobody can be asked: every question fails, and says which option would have answered."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Refuse, naming the option."""
        raise HostKeyError(
            f"The host key of {key.known_as} is not known ({key.kind} {key.fingerprint}), "
            "and there is no terminal to ask at.",
            "If that is the right key, run again with --accept-new-host-key.",
        )

    def secret(self, prompt: str) -> str:
        """Refuse, naming the option."""
        raise CannotAsk(
            f"The login needs a secret ({prompt.rstrip(': ')}), and there is no terminal to ask at.",
            "Load the key into your SSH agent, or name a file that holds the password with --password-file.",
        )

    def answer(self, prompt: str, echo: bool) -> str:
        """Refuse, naming the option."""
        return self.secret(prompt)
