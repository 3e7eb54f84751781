"""Authentication (RFC 4252): which methods are tried, in which order, until the host accepts the login."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dls.errors import LoginError
from dls.remote.ssh.dialogue import Dialogue, account
from dls.remote.ssh.exceptions import NeedsOpenSsh
from dls.remote.ssh.kerberos import has_ticket
from dls.remote.ssh.keyboard_interactive import Rounds
from dls.remote.ssh.prompts import Prompter, Question, QuestionKind
from dls.remote.ssh.publickey import PublicKeys
from dls.remote.ssh.refusals import KERBEROS, closed_error, password_expired, password_refused, refusal_table, refused
from dls.remote.ssh.target import Target
from dls.remote.ssh.transport import HostTransport
from dls.remote.ssh.userauth import ConnectionClosed, Failure, PasswordChangeRequest, Reply, Success, UserAuth

OURS = ("publickey", "keyboard-interactive", "password")
"""The authentication methods that are implemented here; OpenSSH's `ssh` has more."""
HOSTBASED = "hostbased"
MAX_STEPS = 20
"""Most credentials that a host may demand one after the other; one that wants more would never end."""


def choose_method(preferred: Sequence[str], allowed: Sequence[str], spent: set[str]) -> str | None:
    """Return the method to try next: the first preferred one that the host allows and that has not been tried."""
    return next((each for each in preferred if each in OURS and each in allowed and each not in spent), None)


@dataclass
class Authenticator:
    """Tries the authentication methods in the configuration's order until the host accepts the login."""

    target: Target
    transport: HostTransport
    prompter: Prompter
    password: str | None = None
    """Answer to the first question for a password, so that the person is not asked."""
    may_use_openssh: bool = True
    """Whether the caller can go on with OpenSSH's `ssh` when NeedsOpenSsh is raised."""
    accepted: list[str] = field(default_factory=list)
    """The credentials that the host has accepted, in words."""
    _allowed: tuple[str, ...] = ()
    _spent: set[str] = field(default_factory=set)
    _has_ticket: bool | None = None

    def __post_init__(self) -> None:
        self._dialogue = Dialogue(self.target, self.prompter, self._before_question)
        self._userauth = UserAuth(self.transport, self.target.user, self._dialogue.hear)
        self._keys = PublicKeys(self._dialogue, self._userauth, self.transport, may_use_openssh=self.may_use_openssh)

    def authenticate(self) -> str:
        """Log in and return in words which credentials the host accepted.

        Raises LoginError, with a table of what was offered as its detail; NeedsOpenSsh when OpenSSH's `ssh` can go on.
        """
        try:
            with contextlib.closing(self._keys):
                self._try_methods()
        except ConnectionClosed as closed:
            error = closed_error(self.target, closed, self._dialogue.checking, self._dialogue.attempts)
            if self._dialogue.checking and not closed.was_idle:
                self._dialogue.record(self._dialogue.checking, "no answer, the connection was closed")
            raise self._with_table(error) from None
        except LoginError as error:
            self._with_table(error)
            raise
        return " and ".join(self.accepted) or "no credential asked for"

    def _with_table(self, error: LoginError) -> LoginError:
        dialogue = self._dialogue
        error.detail = error.detail or refusal_table(dialogue.attempts, self._allowed, dialogue.words)
        return error

    def _try_methods(self) -> None:
        self._userauth.start()
        reply = self._userauth.request("none")
        steps: dict[str, Callable[[], Reply | None]] = {
            "publickey": self._try_public_keys,
            "keyboard-interactive": self._try_keyboard_interactive,
            "password": self._try_password,
        }
        for _ in range(MAX_STEPS):
            if isinstance(reply, Success):
                return
            assert isinstance(reply, Failure)
            self._allowed = reply.methods
            method = choose_method(self.target.methods, self._allowed, self._spent)
            if method is None:
                break
            further = steps[method]()
            if further is None:
                self._spent.add(method)
            else:
                self._spent.clear()  # the host has accepted something, and may want the same method again
                reply = further
        raise self._refusal()

    def _try_public_keys(self) -> Reply | None:
        reply = self._keys.attempt()
        if reply is not None:
            self.accepted.append(self._keys.accepted)
        return reply

    def _try_keyboard_interactive(self) -> Reply | None:
        for attempt in range(self.target.password_prompts):
            given = None if attempt or self._dialogue.is_password_refused else self.password
            rounds = Rounds(self._dialogue, given)
            reply = rounds.run(self._userauth)
            if self._is_accepted(reply, "the host's questions"):
                return reply
            self._note_refusal(rounds.in_words, is_given=rounds.in_words == "the given password")
            if not rounds.asked or not isinstance(reply, Failure) or "keyboard-interactive" not in reply.methods:
                return None
        return None

    def _try_password(self) -> Reply | None:
        prompt = f"{self.target.user}@{self.target.label}'s password: "
        question = Question(QuestionKind.PASSWORD, account(self.target), prompt)
        for attempt in range(self.target.password_prompts):
            given = None if attempt or self._dialogue.is_password_refused else self.password
            password = self._dialogue.ask(question) if given is None else given
            words = "a password" if given is None else "the given password"
            self._dialogue.checking = words
            reply = self._userauth.request("password", False, password)
            if isinstance(reply, PasswordChangeRequest):
                raise password_expired(self.target)
            if self._is_accepted(reply, "a password"):
                return reply
            self._note_refusal(words, is_given=given is not None)
            if not isinstance(reply, Failure) or "password" not in reply.methods:
                return None
        return None

    def _is_accepted(self, reply: Reply, words: str) -> bool:
        self._dialogue.checking = ""
        if isinstance(reply, Success) or (isinstance(reply, Failure) and reply.partial):
            self.accepted.append(words)
            self._dialogue.record(words, "accepted")
            return True
        return False

    def _note_refusal(self, words: str, *, is_given: bool) -> None:
        self._dialogue.record(words)
        self._dialogue.is_password_refused = self._dialogue.is_password_refused or is_given
        self._dialogue.tell(f"{self.target} did not accept {words.replace('a password', 'that password')}.")

    def _before_question(self) -> None:
        if self._can_use_kerberos():
            raise NeedsOpenSsh(self.target, "Kerberos (GSSAPI)")

    def _can_use_kerberos(self) -> bool:
        if not self.may_use_openssh or not self._could_use(KERBEROS):
            return False
        if self._has_ticket is None:
            self._has_ticket = has_ticket()
        return self._has_ticket

    def _could_use(self, method: str) -> bool:
        return method in self._allowed and method in self.target.methods

    def _refusal(self) -> LoginError:
        # A ticket is wanted here too: without one, `ssh` would only ask for the same passwords again.
        if self._can_use_kerberos():
            return NeedsOpenSsh(self.target, "Kerberos (GSSAPI)")
        if self.may_use_openssh and self._could_use(HOSTBASED):
            return NeedsOpenSsh(self.target, "host-based authentication")
        if self._dialogue.is_password_refused and not self._dialogue.has_asked:
            return password_refused(self.target)
        if self._keys.unanswered is not None:
            return self._keys.unanswered
        tried = [method for method in OURS if method in self._spent]
        return refused(self.target, self._allowed, tried, self._dialogue.attempts)
