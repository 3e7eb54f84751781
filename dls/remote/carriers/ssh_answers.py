"""The answers to what a child `ssh` asks: those of the person, asked in our words, and those that were given."""

from __future__ import annotations

import contextlib
import queue

from dls.remote.carriers.askpass import Asked, AskpassServer
from dls.remote.carriers.ssh_questions import TYPE_YES, read_host_key, read_question
from dls.remote.ssh.prompts import CannotAsk, Prompter, QuestionKind
from dls.remote.ssh.target import Target


class SshAnswers:
    """Answers the questions of `ssh` in the thread that waits for it, so that Ctrl-C ends them."""

    def __init__(self, target: Target, prompter: Prompter, password: str | None, *, accept_new: bool = False) -> None:
        """`accept_new` accepts unknown host keys: a jump host's too, whose `ssh` does not get our options."""
        self._target = target
        self._accept_new = accept_new
        self._prompter = prompter
        self._password = password
        self.unanswered: CannotAsk | None = None
        """Why the passphrase of a key could not be asked for; `ssh` goes on without that key."""

    def give(self, askpass: AskpassServer | None) -> None:
        """Ask the person what `ssh` asks at the moment, if anything; raises what the prompter raises.

        The question stays open then, and `ssh` has to be ended: it takes no answer for an empty password, and tries it.
        """
        if askpass is None:
            return
        with contextlib.suppress(queue.Empty):
            asked = askpass.questions.get_nowait()
            answer = self._ask(asked)
            if asked.kind != "none":
                asked.answer(answer)

    def _ask(self, asked: Asked) -> str | None:
        if asked.kind == "none":
            self._prompter.tell(asked.prompt)
            return None
        if (key := read_host_key(asked.prompt)) is not None:
            return "yes" if self._accept_new or self._prompter.accept_host_key(key) else "no"
        if asked.prompt.startswith(TYPE_YES):
            return "no"
        found = read_question(
            self._target,
            asked.prompt,
            is_named=bool(self._target.session_settings),  # of releases that are newer than those that name it
            has_jump_hosts=bool(self._target.jumps or self._target.proxy_command),
        )
        if found.takes_password and self._password is not None:
            password, self._password = self._password, None
            return password
        try:
            answer = self._prompter.answer(found.question)
        except CannotAsk as error:
            if found.question.kind is not QuestionKind.PASSPHRASE:
                raise
            self.unanswered = self.unanswered or error
            return None
        if asked.kind == "confirm":
            return "" if answer.strip().lower() in ("y", "yes") else None
        return answer
