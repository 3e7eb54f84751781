"""The method `keyboard-interactive` (RFC 4256): the host asks in rounds, in its own words."""

from __future__ import annotations

from dataclasses import dataclass, field

from dls.errors import LoginError
from dls.remote.ssh.dialogue import Dialogue, host_question
from dls.remote.ssh.userauth import InfoRequest, Reply, UserAuth
from dls.remote.ssh.wording import asks_for_password

MAX_ROUNDS = 100
"""Most rounds of questions in one attempt: a host could ask nothing, again and again, for ever."""


@dataclass
class Rounds:
    """One attempt to answer all of the host's questions."""

    dialogue: Dialogue
    password: str | None = None
    """Answer to the first question for the password."""
    asked: list[str] = field(default_factory=list)
    """The questions so far."""
    used_password: bool = False
    """Whether the given password was an answer."""

    def run(self, userauth: UserAuth) -> Reply:
        """Answer round after round; returns the host's verdict."""
        reply = userauth.request("keyboard-interactive", "", "")
        for _ in range(MAX_ROUNDS):
            if not isinstance(reply, InfoRequest):
                return reply
            self.dialogue.checking = ""
            self.dialogue.hear(f"{reply.name}\n{reply.instruction}")
            answers = [self._answer(prompt, echo) for prompt, echo in reply.prompts]
            self.dialogue.checking = self.in_words
            reply = userauth.respond(answers)  # the last round is often empty, and needs an empty answer
        raise LoginError(f"{self.dialogue.target} asks without end.", "Ask whoever runs the host what its login wants.")

    def _answer(self, prompt: str, echo: bool) -> str:
        self.asked.append(prompt)
        if self.password is not None and not self.used_password and asks_for_password(prompt, echo):
            self.used_password = True
            return self.password
        return self.dialogue.ask(host_question(self.dialogue.target, prompt, echo=echo))

    @property
    def in_words(self) -> str:
        """What was answered: "a password" where nothing else was asked."""
        is_password = len(self.asked) == 1 and asks_for_password(self.asked[0], echo=False)
        if not is_password:
            return "answers to the host's questions"
        return "the given password" if self.used_password else "a password"
