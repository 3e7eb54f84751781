"""Passwords in the system's keychain, by the keyring library: macOS' Keychain, Windows' Credential Locker, libsecret.

The library is an extra; without it, or without a keychain, nothing is found there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dls.errors import TargetError
from dls.extras import install_hint
from dls.remote.ssh.dialogue import account
from dls.remote.ssh.prompts import NewHostKey, Prompter, Question, QuestionKind
from dls.remote.ssh.target import Target
from dls.remote.ssh.wording import asks_for_password

if TYPE_CHECKING:
    from types import ModuleType

SERVICE = "dls"
"""Name under which the passwords are in the keychain; the account is `user@host:port`."""


def _load() -> ModuleType | None:
    try:
        import keyring
    except ImportError:
        return None
    return keyring


def check_available() -> None:
    """Raise TargetError where a password could not be saved."""
    keyring = _load()
    if keyring is None:
        raise TargetError("--save-password needs the keyring library.", install_hint("keychain"))
    if keyring.get_keyring().priority <= 0:
        raise TargetError("This computer has no keychain that keyring can use.", "Leave --save-password out.")


def find(name: str) -> str | None:
    """Return the account's password; None where there is none, or no keychain."""
    keyring = _load()
    if keyring is None:
        return None
    try:
        found: Any = keyring.get_password(SERVICE, name)
    except Exception:  # locked, its unlocking was refused, or what the backend's own libraries raise
        return None
    return None if found is None else str(found)


def save(name: str, password: str) -> bool:
    """Keep the account's password; False where the keychain refuses it."""
    keyring = _load()
    if keyring is None:
        return False
    try:
        keyring.set_password(SERVICE, name, password)
    except Exception:
        return False
    return True


def forget(target: Target) -> bool:
    """Remove the password of the target's account; False where there was none."""
    keyring = _load()
    if keyring is None:
        return False
    try:
        keyring.delete_password(SERVICE, account(target))
    except Exception:
        return False
    return True


class KeychainPrompter:
    """Answers questions for a password from the keychain, and keeps those that were typed and accepted."""

    def __init__(self, prompter: Prompter, *, saves: bool) -> None:
        """With `saves`, a password that the person types is kept once `login_accepted` is called.

        Raises TargetError where it could not be.
        """
        if saves:
            check_available()
        self._prompter = prompter
        self._saves = saves
        self._offered: set[str] = set()
        self._found: set[str] = set()
        self._typed: dict[str, str] = {}

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask the person."""
        return self._prompter.accept_host_key(key)

    def tell(self, text: str) -> None:
        """Show the text."""
        self._prompter.tell(text)

    def answer(self, question: Question) -> str:
        """Return the password in the keychain, once for each account; else ask the person."""
        if not _is_password(question):
            return self._prompter.answer(question)
        name = question.subject
        if name not in self._offered:
            self._offered.add(name)
            if (password := find(name)) is not None:
                self._found.add(name)
                return password
        if name in self._found:
            self._prompter.tell("The host did not take the password in the keychain.")
            self._found.discard(name)
        self._typed[name] = self._prompter.answer(question)
        return self._typed[name]

    def login_accepted(self) -> None:
        """Keep what was typed; a later login may use the keychain again."""
        for name, password in self._typed.items():
            if self._saves and not save(name, password):
                self._prompter.tell("The keychain did not take the password.")
        self._typed.clear()
        self._offered.clear()
        self._found.clear()


def _is_password(question: Question) -> bool:
    is_asked = question.kind is QuestionKind.HOST and asks_for_password(question.prompt, question.echo)
    return question.kind is QuestionKind.PASSWORD or is_asked
