"""Authentication (RFC 4252): which credentials are offered, in which order, and when a person is asked."""

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
from dls.remote.ssh.prompts import CannotAsk, Prompter, Question, QuestionKind
from dls.remote.ssh.target import Target

METHODS = ("publickey", "keyboard-interactive", "password")
"""Authentication methods in the order in which they are tried: first the one that asks no question."""
ATTEMPTS = 3
"""Maximum number of attempts to type a secret, as in OpenSSH (NumberOfPasswordPrompts)."""
AUTH_TIMEOUT = 300.0
"""Seconds that one answer may take, for people who have to find their phone; paramiko's default is 30 s."""

KeyboardQuestion = tuple[str, bool]
"""One question of a keyboard-interactive round (RFC 4256): its text, and whether to show what is typed."""


def host_question(target: Target, prompt: str, *, echo: bool) -> Question:
    """Return a question in the host's words, each line with the host's name: it could ask in our words for a secret."""
    lines = [line for line in prompt.splitlines() if line.strip()] or [""]
    text = "\n".join(f"{target} asks: {line}" for line in lines)
    return Question(QuestionKind.HOST, _account(target), text, echo)


def _account(target: Target) -> str:
    return f"{target.user}@{target.host}:{target.port}"


def choose_method(allowed: Sequence[str], spent: set[str]) -> str | None:
    """Return the method to try next: the first that the host allows and that has not been tried; None at the end."""
    return next((method for method in METHODS if method in allowed and method not in spent), None)


@dataclass
class Authenticator:
    """Tries the host's authentication methods in order until the host accepts the login."""

    target: Target
    transport: paramiko.Transport
    prompter: Prompter
    password: str | None = None
    """Answer to the first question for a password, so that the person is not asked."""
    accepted: list[str] = field(default_factory=list)
    """The credentials that the host has accepted, in words."""
    _unanswered: LoginError | None = None
    """Why a key's passphrase could not be asked for."""

    def authenticate(self) -> str:
        """Log in and return in words which credentials the host accepted, or raise LoginError."""
        self.transport.auth_timeout = AUTH_TIMEOUT
        allowed = self._query_methods()
        spent: set[str] = set()
        steps: dict[str, Callable[[], list[str] | None]] = {
            "publickey": self._try_public_keys,
            "keyboard-interactive": self._try_keyboard_interactive,
            "password": self._try_password,
        }
        while allowed:
            method = choose_method([each for each in allowed if each in self.target.methods], spent)
            if method is None:
                raise self._unanswered or self._refusal_error(allowed, spent)
            further = steps[method]()
            spent.add(method)
            if further is not None:
                allowed = further
        return " and ".join(self.accepted) or "no credential asked for"

    def _query_methods(self) -> list[str]:
        try:
            return list(self.transport.auth_none(self.target.user))
        except paramiko.BadAuthenticationType as answer:
            return list(answer.allowed_types)

    def _try_public_keys(self) -> list[str] | None:
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
            self.accepted.append(name)
            return list(further)
        return None

    def _keys(self) -> Iterator[tuple[str, paramiko.PKey]]:
        """Yield the agent's keys, then the key files without a passphrase, then those with one, unlocked."""
        if not self.target.identities_only:
            with contextlib.closing(paramiko.Agent()) as agent:
                for key in agent.get_keys():
                    yield "a key of the SSH agent", key
        locked = []
        for path in filter(Path.is_file, self.target.identities):
            try:
                yield f"the key {path.name}", paramiko.PKey.from_path(path)
            except (TypeError, paramiko.PasswordRequiredException):  # cryptography raises TypeError for a locked key
                locked.append(path)
            except (OSError, ValueError, paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm):
                continue  # paramiko can't read a key on a FIDO token, for example; the agent can use it
        for path in locked:
            unlocked = self._unlock(path)
            if unlocked is not None:
                yield f"the key {path.name}", unlocked

    def _unlock(self, path: Path) -> paramiko.PKey | None:
        for _ in range(ATTEMPTS):
            question = Question(QuestionKind.PASSPHRASE, str(path), f"Passphrase of the key {path}: ")
            try:
                passphrase = self.prompter.answer(question)
            except CannotAsk as error:  # another method may need no question
                self._unanswered = error
                return None
            if not passphrase:
                return None
            try:
                # paramiko 5.1 needs bytes, whatever its annotation says: it passes them to cryptography unchanged.
                return paramiko.PKey.from_path(path, password=passphrase.encode())  # type: ignore[arg-type]
            except (paramiko.SSHException, ValueError, UnsupportedAlgorithm):
                continue
        return None

    def _try_password(self) -> list[str] | None:
        for attempt in range(ATTEMPTS):
            prompt = f"{self.target.user}@{self.target.label}'s password: "
            question = Question(QuestionKind.PASSWORD, _account(self.target), prompt)
            password = self._next_password(question, attempt)
            try:
                further = self.transport.auth_password(self.target.user, password, fallback=False)
            except paramiko.AuthenticationException:
                if not self.transport.is_active():
                    break
                continue
            self.accepted.append("a password")
            return list(further)
        return None

    def _next_password(self, question: Question, attempt: int) -> str:
        if self.password is not None and attempt == 0:
            return self.password
        return self.prompter.answer(question)

    def _try_keyboard_interactive(self) -> list[str] | None:
        for attempt in range(ATTEMPTS):
            try:
                further = self._authenticate_interactively(attempt)
            except paramiko.AuthenticationException:
                if not self.transport.is_active():
                    break
                continue
            self.accepted.append("the host's questions")
            return list(further)
        return None

    def _authenticate_interactively(self, attempt: int) -> list[str]:
        # paramiko calls the handler in its own thread, where Ctrl-C does not arrive. So the login runs in a second
        # thread, and the handler passes the questions to this one.
        questions: queue.Queue[list[KeyboardQuestion] | None] = queue.Queue()
        answers: queue.Queue[list[str]] = queue.Queue()
        outcome: list[list[str] | BaseException] = []

        def handle_questions(title: str, instructions: str, prompts: list[KeyboardQuestion]) -> list[str]:
            questions.put(list(prompts))
            return answers.get()

        def authenticate() -> None:
            try:
                outcome.append(list(self.transport.auth_interactive(self.target.user, handle_questions)))
            except Exception as error:
                outcome.append(error)
            questions.put(None)

        threading.Thread(target=authenticate, name="dls-login", daemon=True).start()
        try:
            while (batch := _get(questions)) is not None:
                answers.put(self._answer(batch, attempt))
        except BaseException:
            answers.put([])  # lets the transport's thread continue
            self.transport.close()
            raise
        [result] = outcome
        if isinstance(result, BaseException):
            raise result
        return result

    def _answer(self, questions: list[KeyboardQuestion], attempt: int) -> list[str]:
        # The host asks in rounds; the last round is often empty and needs an empty answer.
        answers = []
        for prompt, echo in questions:
            question = host_question(self.target, prompt, echo=echo)
            if "password" in prompt.lower() and not echo:
                answers.append(self._next_password(question, attempt))
            else:
                answers.append(self.prompter.answer(question))
        return answers

    def _refusal_error(self, allowed: Sequence[str], spent: set[str]) -> LoginError:
        tried = ", ".join(method for method in METHODS if method in spent) or "nothing that dls knows"
        hint = "Check the user name and the key; name a key with -i."
        if not self.transport.is_active():
            hint = "The host closed the connection: too many attempts, or the account may not log in here."
        return LoginError(f"{self.target} accepted no login (it takes {', '.join(allowed)}; tried: {tried}).", hint)


T = TypeVar("T")


def _get(source: queue.Queue[T]) -> T:
    """Wait for the queue's next item in short steps: on Windows Ctrl-C can't interrupt an unbounded wait."""
    while True:
        try:
            return source.get(timeout=0.2)
        except queue.Empty:
            continue
