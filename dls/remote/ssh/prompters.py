"""Prompters around another one: one reuses answers, one lets a background thread ask in the foreground thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dls.remote.ssh.prompts import CannotAsk, NewHostKey, Prompter

ONE_TIME_WORDS = ("code", "token", "otp", "one-time", "passcode", "verification", "duo")
"""Words in a question that show that its answer can be used only once."""
POLL_SECONDS = 0.2
"""Seconds between two checks, while a background thread waits for an answer, that the foreground thread still asks."""


def is_one_time(prompt: str) -> bool:
    """Whether the answer to a host's question can be used only once."""
    return any(word in prompt.lower() for word in ONE_TIME_WORDS)


class CachingPrompter:
    """Keeps passwords and passphrases in memory while the command runs, so that each is asked for once.

    A one-time code is used again only if the link was lost before the host had accepted or refused it.
    """

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._answers: dict[str, str] = {}
        self._used: set[str] = set()
        """Prompts that have been answered in the login that goes on."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask the person each time."""
        return self._prompter.accept_host_key(key)

    def secret(self, prompt: str) -> str:
        """Return the answer in memory; ask when there is none, or when it has been given in this login already."""
        return self._answer(prompt, lambda: self._prompter.secret(prompt))

    def answer(self, prompt: str, echo: bool) -> str:
        """Return the answer in memory; ask when there is none, or when it has been given in this login already."""
        return self._answer(prompt, lambda: self._prompter.answer(prompt, echo))

    def _answer(self, prompt: str, ask: Callable[[], str]) -> str:
        if prompt in self._used or prompt not in self._answers:
            self._answers[prompt] = ask()
        self._used.add(prompt)
        return self._answers[prompt]

    def login_accepted(self) -> None:
        """End a login that the host accepted: passwords stay in memory, one-time codes are forgotten."""
        self._answers = {prompt: answer for prompt, answer in self._answers.items() if not is_one_time(prompt)}
        self._used.clear()

    def login_refused(self) -> None:
        """End a login that the host refused: every answer is forgotten, so that none is offered twice."""
        self._answers.clear()
        self._used.clear()

    def login_interrupted(self) -> None:
        """End a login that was neither accepted nor refused: every answer may be used in the next one."""
        self._used.clear()


@dataclass(eq=False)
class _Question:
    """A call that the foreground thread is to make for a background thread, and its result."""

    ask: Callable[[], object]
    done: threading.Event = field(default_factory=threading.Event)
    answer: object = None
    error: BaseException | None = None


class ThreadedPrompter:
    """Hands the questions of a background thread to the foreground thread, which calls `answer_pending`.

    Ctrl-C reaches only the foreground (main) thread, so a question there can be interrupted.
    """

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._pending: queue.Queue[_Question] = queue.Queue()
        self.has_foreground = False
        """Whether a foreground thread calls `answer_pending` regularly; without one, questions are asked directly."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask in the foreground thread."""
        return bool(self._relay(lambda: self._prompter.accept_host_key(key)))

    def secret(self, prompt: str) -> str:
        """Ask in the foreground thread."""
        return str(self._relay(lambda: self._prompter.secret(prompt)))

    def answer(self, prompt: str, echo: bool) -> str:
        """Ask in the foreground thread."""
        return str(self._relay(lambda: self._prompter.answer(prompt, echo)))

    def _relay(self, ask: Callable[[], object]) -> object:
        if not self.has_foreground:
            return ask()  # a caller of the library, with a prompter of its own and no Ctrl-C to wait for
        question = _Question(ask)
        self._pending.put(question)
        while not question.done.wait(POLL_SECONDS):
            if not self.has_foreground and self._withdraw(question):
                raise CannotAsk("The login needs an answer, and the command no longer waits for questions.")
        if question.error is not None:
            raise question.error
        return question.answer

    def _withdraw(self, question: _Question) -> bool:
        """Remove a question that no thread has begun to ask; False when one has."""
        with self._pending.mutex:
            try:
                self._pending.queue.remove(question)
            except ValueError:
                return False
        return True

    def answer_pending(self) -> None:
        """Ask one pending question, if there is one; an exception like Ctrl-C is raised here too."""
        try:
            question = self._pending.get_nowait()
        except queue.Empty:
            return
        try:
            question.answer = question.ask()
        except BaseException as error:
            question.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            question.done.set()
