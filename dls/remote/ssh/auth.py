"""Which credential, in what order, and when to ask."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import UnknownKeyType

from dls.errors import LoginError
from dls.remote.ssh.prompts import CannotAsk, Prompter
from dls.remote.ssh.target import Target

METHODS = ("publickey", "keyboard-interactive", "password")
"""In the order they are tried: what asks nobody first."""
ATTEMPTS = 3
"""How often a person may mistype, as in OpenSSH (NumberOfPasswordPrompts)."""
AUTH_TIMEOUT = 300.0
"""Seconds a person may take to find their phone; paramiko's own 30 s ends in "Authentication timeout"."""


def next_method(allowed: Sequence[str], spent: set[str]) -> str | None:
    """Return the method to try next: one the host allows that has not failed yet."""
    return next((method for method in METHODS if method in allowed and method not in spent), None)


@dataclass
class Login:
    """One login: walks the host's methods until it is satisfied.

    `password` answers the first password question without asking; `how` says afterwards what was accepted.
    """

    target: Target
    transport: paramiko.Transport
    prompter: Prompter
    password: str | None = None
    how: list[str] = field(default_factory=list)
    _unasked: LoginError | None = None

    def run(self) -> str:
        """Log in and return what the host accepted, or raise LoginError."""
        self.transport.auth_timeout = AUTH_TIMEOUT
        allowed = self._ask_what_is_allowed()
        spent: set[str] = set()
        steps: dict[str, Callable[[], list[str] | None]] = {
            "publickey": self._public_key,
            "keyboard-interactive": self._keyboard_interactive,
            "password": self._password,
        }
        while allowed:
            method = next_method(allowed, spent)
            if method is None:
                raise self._unasked or self._refused(allowed, spent)
            further = steps[method]()
            spent.add(method)
            if further is not None:
                allowed = further
        return " and ".join(self.how) or "no credential asked for"

    def _ask_what_is_allowed(self) -> list[str]:
        try:
            return list(self.transport.auth_none(self.target.user))
        except paramiko.BadAuthenticationType as answer:
            return list(answer.allowed_types)

    def _public_key(self) -> list[str] | None:
        for name, key in self._keys():
            try:
                further = self.transport.auth_publickey(self.target.user, key)
            except paramiko.AuthenticationException:
                if not self.transport.is_active():
                    raise LoginError(
                        f"{self.target} refused the login after too many keys were tried.",
                        "Name the right key with -i, and set IdentitiesOnly yes for this host in ~/.ssh/config.",
                    ) from None
                continue
            self.how.append(name)
            return list(further)
        return None

    def _keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        files = [path for path in self.target.identities if path.is_file()]
        if not self.target.identities_only:
            with contextlib.closing(paramiko.Agent()) as agent:
                for key in agent.get_keys():
                    yield "a key of the SSH agent", key
        locked = []
        for path in files:
            try:
                yield f"the key {path.name}", paramiko.PKey.from_path(path)
            except (
                TypeError,
                paramiko.PasswordRequiredException,
            ):  # cryptography says TypeError: a password is missing
                locked.append(path)
            except (OSError, ValueError, paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm):
                continue  # a key on a FIDO token, say: the agent can use it, we can't
        for path in locked:
            unlocked = self._unlock(path)
            if unlocked is not None:
                yield f"the key {path.name}", unlocked

    def _unlock(self, path: Path) -> paramiko.PKey | None:
        for _ in range(ATTEMPTS):
            try:
                phrase = self.prompter.secret(f"Passphrase of the key {path}: ")
            except CannotAsk as error:  # another method may do without asking
                self._unasked = error
                return None
            if not phrase:
                return None
            try:
                # Bytes, whatever the annotation says: paramiko 5.1 hands them to cryptography as they are.
                return paramiko.PKey.from_path(path, password=phrase.encode())  # type: ignore[arg-type]
            except (paramiko.SSHException, ValueError, UnsupportedAlgorithm):
                continue
        return None

    def _password(self) -> list[str] | None:
        for attempt in range(ATTEMPTS):
            word = self._next_password(f"{self.target.user}@{self.target.label}'s password: ", attempt)
            try:
                further = self.transport.auth_password(self.target.user, word, fallback=False)
            except paramiko.AuthenticationException:
                if not self.transport.is_active():
                    break
                continue
            self.how.append("a password")
            return list(further)
        return None

    def _next_password(self, prompt: str, attempt: int) -> str:
        if self.password is not None and attempt == 0:
            return self.password
        return self.prompter.secret(prompt)

    def _keyboard_interactive(self) -> list[str] | None:
        for attempt in range(ATTEMPTS):
            try:
                further = self._interactive_round(attempt)
            except paramiko.AuthenticationException:
                if not self.transport.is_active():
                    break
                continue
            self.how.append("the host's questions")
            return list(further)
        return None

    def _interactive_round(self, attempt: int) -> list[str]:
        # paramiko calls the handler on its own thread, where nobody can press Ctrl-C: the login goes on in a thread
        # beside, and the questions come back to this one.
        asked: queue.Queue[list[tuple[str, bool]] | None] = queue.Queue()
        given: queue.Queue[list[str]] = queue.Queue()
        outcome: list[list[str] | BaseException] = []

        def handler(title: str, instructions: str, questions: list[tuple[str, bool]]) -> list[str]:
            asked.put(list(questions))
            return given.get()

        def log_in() -> None:
            try:
                outcome.append(list(self.transport.auth_interactive(self.target.user, handler)))
            except Exception as error:
                outcome.append(error)
            asked.put(None)

        threading.Thread(target=log_in, name="dls-login", daemon=True).start()
        try:
            while (questions := _wait_for(asked)) is not None:
                given.put(self._answers(questions, attempt))
        except BaseException:
            given.put([])  # let the transport's thread go
            self.transport.close()
            raise
        [ended] = outcome
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def _answers(self, questions: list[tuple[str, bool]], attempt: int) -> list[str]:
        # The host asks in rounds, and closes with an empty one that wants an empty answer.
        replies = []
        for prompt, echo in questions:
            if "password" in prompt.lower() and not echo:
                replies.append(self._next_password(prompt, attempt))
            else:
                replies.append(self.prompter.answer(prompt, echo))
        return replies

    def _refused(self, allowed: Sequence[str], spent: set[str]) -> LoginError:
        tried = ", ".join(method for method in METHODS if method in spent) or "nothing that dls knows"
        hint = "Check the user name and the key; name a key with -i."
        if not self.transport.is_active():
            hint = "The host closed the connection: too many attempts, or the account may not log in here."
        return LoginError(f"{self.target} accepted no login (it takes {', '.join(allowed)}; tried: {tried}).", hint)


T = TypeVar("T")


def _wait_for(source: queue.Queue[T]) -> T:
    """Wait in short steps: on Windows an unbounded wait can't be interrupted by Ctrl-C."""
    while True:
        try:
            return source.get(timeout=0.2)
        except queue.Empty:
            continue
