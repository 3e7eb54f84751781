"""Answers that are reused, and questions of a thread in the background that the terminal's thread has to ask."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dls.remote.ssh.prompts import NewHostKey, Prompter

CODE_WORDS = ("code", "token", "otp", "one-time", "passcode", "verification", "duo")
"""Of questions whose answer is good for once."""


def is_for_once(prompt: str) -> bool:
    """Whether the answer to a host's question can't be used again."""
    return any(word in prompt.lower() for word in CODE_WORDS)


class CachingPrompter:
    """Asks once for what can be used again: passwords and passphrases, in memory, for as long as the command runs.

    A one-time code that was typed but never judged, because the link went meanwhile, is used for the next try.
    """

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._known: dict[str, str] = {}
        self._used: set[str] = set()

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask each time."""
        return self._prompter.accept_host_key(key)

    def secret(self, prompt: str) -> str:
        """Answer from memory, unless that answer has been given in this login already."""
        return self._answer(prompt, lambda: self._prompter.secret(prompt))

    def answer(self, prompt: str, echo: bool) -> str:
        """The same for a question of the host."""
        return self._answer(prompt, lambda: self._prompter.answer(prompt, echo))

    def _answer(self, prompt: str, ask: Callable[[], str]) -> str:
        if prompt in self._used or prompt not in self._known:
            self._known[prompt] = ask()
        self._used.add(prompt)
        return self._known[prompt]

    def judged(self, *, accepted: bool) -> None:
        """A login ended with the host's word: codes are spent, and a refused password is not offered again."""
        self._known = {prompt: word for prompt, word in self._known.items() if accepted and not is_for_once(prompt)}
        self._used.clear()

    def undecided(self) -> None:
        """A login ended without the host's word."""
        self._used.clear()


@dataclass
class _Question:
    ask: Callable[[], object]
    done: threading.Event = field(default_factory=threading.Event)
    answer: object = None
    error: BaseException | None = None


class ThreadedPrompter:
    """A prompter for a thread in the background: the questions are asked in the thread that calls `ask_what_waits`."""

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter
        self._waiting: queue.Queue[_Question] = queue.Queue()
        self.is_attended = False
        """Whether there is a thread that asks."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask, in the other thread."""
        return bool(self._relay(lambda: self._prompter.accept_host_key(key)))

    def secret(self, prompt: str) -> str:
        """Ask, in the other thread."""
        return str(self._relay(lambda: self._prompter.secret(prompt)))

    def answer(self, prompt: str, echo: bool) -> str:
        """Ask, in the other thread."""
        return str(self._relay(lambda: self._prompter.answer(prompt, echo)))

    def _relay(self, ask: Callable[[], object]) -> object:
        if not self.is_attended:
            return ask()  # nobody is there to press Ctrl-C: a library's caller, with a prompter of its own
        question = _Question(ask)
        self._waiting.put(question)
        question.done.wait()
        if question.error is not None:
            raise question.error
        return question.answer

    def ask_what_waits(self) -> None:
        """Ask one question, if there is one; what ends the asking (Ctrl-C) is raised here too."""
        try:
            question = self._waiting.get_nowait()
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
