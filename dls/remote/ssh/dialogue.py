"""What is said during one login: what the person is asked and told, and what the host has refused so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from dls.remote.ssh.prompts import CannotAsk, Prompter, Question, QuestionKind
from dls.remote.ssh.refusals import Attempt, password_refused
from dls.remote.ssh.target import Target

NOT_ACCEPTED = "not accepted"


def name_lines(name: str, verb: str, text: str) -> str:
    """Return somebody's words, each line with the name before it: they could else pass for words of ours."""
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    return "\n".join(f"{name} {verb}: {line}" for line in lines)


def host_question(target: Target, prompt: str, *, echo: bool) -> Question:
    """Return a question in the host's words, each line with the host's name: it could ask in our words for a secret."""
    return Question(QuestionKind.HOST, account(target), name_lines(str(target), "asks", prompt), echo)


def account(target: Target) -> str:
    """Return the account that gets an answer, as `user@host:port`."""
    return f"{target.user}@{target.host}:{target.port}"


@dataclass
class Dialogue:
    """Asks and tells the person, and remembers for the error what was offered and what the host said."""

    target: Target
    prompter: Prompter
    before_question: Callable[[], None] = lambda: None
    """Called before a person is asked; raises an error where something else could go on without a question."""
    attempts: list[Attempt] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """What the host has said, with its name before each line."""
    checking: str = ""
    """The credential that the host is checking, in words."""
    has_asked: bool = False
    is_password_refused: bool = False
    """Whether the host refused the password that was given as an option."""

    def ask(self, question: Question) -> str:
        """Ask the person, or raise CannotAsk."""
        self.before_question()
        try:
            answer = self.prompter.answer(question)
        except CannotAsk:
            if self.is_password_refused and question.kind is not QuestionKind.PASSPHRASE:
                raise password_refused(self.target) from None
            raise
        self.has_asked = True
        return answer

    def tell(self, text: str) -> None:
        """Tell the person something that needs no answer."""
        self.prompter.tell(text)

    def hear(self, text: str) -> None:
        """Show what the host says."""
        if text.strip():
            words = name_lines(str(self.target), "says", text)
            self.words.append(words)
            self.prompter.tell(words)

    def record(self, credential: str, outcome: str = NOT_ACCEPTED) -> None:
        """Remember what became of a credential."""
        self.attempts.append(Attempt(credential, outcome))
