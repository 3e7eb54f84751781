"""A prompter that answers from a script, for tests of logins that ask questions."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from dls.remote.ssh.prompts import NewHostKey, NoPrompter, Question

Answer = str | BaseException
"""Text that is typed, or an exception that is raised instead."""


class ScriptedPrompter(NoPrompter):
    """Answers each prompt with the first entry of `answers` whose key is part of it, and records what was asked.

    A sequence of answers is used in turn, one answer for each time that the prompt appears; a single answer is used
    every time. A prompt without an answer fails the test. New host keys are accepted or refused as
    `accept_host_keys` says; None means that nobody can be asked.
    """

    def __init__(
        self, answers: Mapping[str, Answer | Sequence[Answer]] | None = None, *, accept_host_keys: bool | None = None
    ) -> None:
        self._answers = {
            key: [answer] if isinstance(answer, BaseException) else answer if isinstance(answer, str) else list(answer)
            for key, answer in (answers or {}).items()
        }
        self._accept_host_keys = accept_host_keys
        self.asked: list[tuple[str, bool]] = []
        """The prompts in order, each with whether its answer was shown."""
        self.host_keys: list[NewHostKey] = []
        self.told: list[str] = []
        """What was shown without a question."""
        self.threads: set[str] = set()
        """Names of the threads that asked."""

    @property
    def host_questions(self) -> list[str]:
        """The hosts' own questions, without the hosts' names, which must stand before each."""
        return [prompt.partition(" asks: ")[2] for prompt, _ in self.asked]

    @property
    def prompts(self) -> list[str]:
        """The prompts in order."""
        return [prompt for prompt, _ in self.asked]

    def accept_host_key(self, key: NewHostKey) -> bool:
        self.host_keys.append(key)
        return super().accept_host_key(key) if self._accept_host_keys is None else self._accept_host_keys

    def tell(self, text: str) -> None:
        self.told.append(text)

    def answer(self, question: Question) -> str:
        prompt = question.prompt
        self.asked.append((prompt, question.echo))
        self.threads.add(threading.current_thread().name)
        script = next((value for key, value in self._answers.items() if key in prompt), None)
        assert script, f"the script has no answer to {prompt!r}"
        answer = script if isinstance(script, str) else script.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer
