"""Questions that a person may have to answer during a login."""

from __future__ import annotations

import enum
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
    other_names: tuple[str, ...] = ()
    """Where known_hosts lists the same key under other names, each as FILE:LINE: NAMES."""

    def read_answer(self, answer: str) -> bool | None:
        """Return whether the answer accepts the key, as OpenSSH reads it; None where it is no answer.

        "yes" or the fingerprint accepts it; "no" or nothing refuses it.
        """
        word = (answer.split() or [""])[0]
        if word.lower() in ("", "no"):
            return False
        return True if word.lower() == "yes" or word == self.fingerprint else None


class CannotAsk(LoginError):
    """The login needs an answer, and there is no terminal to ask at."""


class QuestionKind(enum.Enum):
    """What a question asks for, which decides who may get the answer."""

    PASSPHRASE = "the passphrase of a key on this computer"  # noqa: S105 - no secret
    PASSWORD = "the user's password on a host"  # noqa: S105
    HOST = "a question in the host's own words"
    CONSENT = "yes or no: to what this computer would do for a host, or to the licence of a model"


@dataclass(frozen=True)
class Question:
    """A question whose answer is typed; equal questions have the same kind, subject and text."""

    kind: QuestionKind
    subject: str
    """The key's file for a passphrase, else the host that gets the answer, as `user@host:port`."""
    prompt: str
    """The text to show; each line of a question in the host's own words begins with the host's name."""
    echo: bool = False
    """Whether to show what is typed."""


class Prompter(Protocol):
    """Asks the person at the laptop."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask whether this new host key is the right one."""

    def answer(self, question: Question) -> str:
        """Ask for a passphrase, a password, or what the host wants to know, such as a one-time code."""

    def tell(self, text: str) -> None:
        """Show what the host or `ssh` says and needs no answer: a banner, "push sent", "wrong password"."""


class NoPrompter:
    """Refuses every question, with an error that names the option that would have answered it."""

    reason = "there is no terminal to ask at"
    """Why nobody can be asked."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Raise HostKeyError."""
        raise HostKeyError(
            f"The host key of {key.known_hosts_name} is not known ({key.key_type} {key.fingerprint}), "
            f"and {self.reason}.",
            "If that is the right key, run again with --accept-new-host-key.",
        )

    def answer(self, question: Question) -> str:
        """Raise CannotAsk."""
        if question.kind is QuestionKind.CONSENT:
            raise CannotAsk(f"{question.subject} needs an answer, and {self.reason}.", "Answer with --lend-network.")
        raise CannotAsk(
            f"The login needs a secret ({question.prompt.rstrip(': ')}), and {self.reason}.",
            "Load the key into your SSH agent, or name a file that holds the password with --password-file.",
        )

    def tell(self, text: str) -> None:
        """Do nothing."""
