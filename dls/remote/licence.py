"""The licence of the official weights: shown once, agreed to, and remembered for this computer's user."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from dls import weights
from dls.engine_choice import AUTO, NNINTERACTIVE, REGION
from dls.errors import TargetError
from dls.remote.ssh.prompts import CannotAsk, NoPrompter, Prompter, Question, QuestionKind
from dls.remote.user import memory

NAME = weights.DEFAULT_LICENSE
WIDTH = 76
"""Columns of the text, so that it is not broken within words on the narrowest usual terminal."""
TEXT = (
    f"nnInteractive's weights are under {NAME}: use, share and adapt them\n"
    "under the same terms, naming the authors, and not for commercial purposes.\n"
    f"{weights.LICENSE_URL}\n"
    f"{textwrap.fill('Please cite: ' + weights.CITATION, WIDTH)}\n"
)
QUESTION = "Do you agree? This is asked once on this computer (yes/no): "


def needs_agreement(engine: str, model: str | None) -> bool:
    """Return whether official weights would be used: a model that is a folder is the user's own."""
    is_folder = model is not None and ("/" in model or "\\" in model)
    return engine == NNINTERACTIVE and not is_folder


class Licence:
    """The agreement of the user to the licence, which is asked for when it is needed, and once."""

    def __init__(
        self,
        prompter: Prompter | None,
        note: Callable[[str], None],
        asked_for: str,
        model: str | None,
        *,
        accept: bool = False,
    ) -> None:
        """`note` shows a line; `asked_for` and `model` are the options; `accept` means that an option says yes."""
        self._prompter = prompter or NoPrompter()
        self._note = note
        self._asked_for = asked_for
        self._model = model
        self._accept = accept
        self._is_settled = False

    def require(self, engine: str) -> None:
        """Raise TargetError unless the user agrees, where the engine would use official weights."""
        if self._is_settled or not needs_agreement(engine, self._model) or memory.has_agreed(NAME):
            return
        if self._accept:
            for line in TEXT.splitlines():
                self._note(line)
        elif not self._ask():
            raise TargetError(
                f"The licence of nnInteractive's weights ({NAME}) was not agreed to.",
                f"--engine {REGION} needs no weights.",
            )
        self._is_settled = True
        if not memory.agree(NAME):
            self._note("The agreement can't be written down on this computer: it will be asked for again.")

    def _ask(self) -> bool:
        question = Question(QuestionKind.CONSENT, "", TEXT + QUESTION, echo=True)
        try:
            answer = self._prompter.answer(question)
        except CannotAsk as error:
            otherwise = f"; --engine {REGION} needs no weights"
            raise TargetError(
                f"nnInteractive's weights are under {NAME} (no commercial use), and there is no terminal to agree at.",
                f"Agree once at a terminal, or with --accept-licence{otherwise if self._asked_for == AUTO else ''}.",
                TEXT.rstrip(),
            ) from error
        return answer.strip().lower() in ("yes", "y")
