"""Prompters that wrap another one: to reuse answers, and to let a background thread ask in the foreground thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from dls.errors import DlsError
from dls.remote.ssh.prompts import CannotAsk, NewHostKey, NoPrompter, Prompter, Question
from dls.remote.ssh.wording import is_one_time

POLL_SECONDS = 0.2
"""Seconds between two checks, while a background thread waits for an answer, that the foreground thread still asks."""


class BatchPrompter(NoPrompter):
    """Asks nothing, since the configuration says BatchMode, and shows what the host says."""

    reason = "BatchMode forbids to ask"

    def __init__(self, prompter: Prompter) -> None:
        self._prompter = prompter

    def tell(self, text: str) -> None:
        """Show the text."""
        self._prompter.tell(text)


class CachingPrompter:
    """Keeps passwords and passphrases in memory while the command runs, so that each is asked for once.

    An answer is given again to the same question only: one of the same kind, about the same key or from the same user
    and host. A host that asks for a key's passphrase in our own words asks another question. A one-time code is used
    again only if the link was lost before the host had accepted or refused it.
    """

    def __init__(self, prompter: Prompter, on_accepted: Callable[[], None] = lambda: None) -> None:
        """`on_accepted` is called after each login that the host accepted."""
        self._prompter = prompter
        self._on_accepted = on_accepted
        self._answers: dict[Question, str] = {}
        self._used: set[Question] = set()
        """Questions that have been answered in the current login."""
        self._accepted: set[NewHostKey] = set()

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask the person, but not again about a key that was accepted and could not be kept in known_hosts."""
        if key not in self._accepted and not self._prompter.accept_host_key(key):
            return False
        self._accepted.add(key)
        return True

    def answer(self, question: Question) -> str:
        """Return the answer in memory; ask when there is none, or when it has been given in this login already."""
        if question in self._used or question not in self._answers:
            self._answers[question] = self._prompter.answer(question)
        self._used.add(question)
        return self._answers[question]

    def tell(self, text: str) -> None:
        """Show the text."""
        self._prompter.tell(text)

    def login_accepted(self) -> None:
        """End a login that the host accepted: passwords stay in memory, one-time codes are forgotten."""
        self._on_accepted()
        self._answers = {each: answer for each, answer in self._answers.items() if not is_one_time(each.prompt)}
        self._used.clear()

    def login_refused(self) -> None:
        """End a login that the host refused: every answer is forgotten, so that none is offered twice."""
        self._answers.clear()
        self._used.clear()

    def login_interrupted(self) -> None:
        """End a login that was neither accepted nor refused: every answer may be used in the next one."""
        self._used.clear()


@dataclass(eq=False)
class _Call:
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
        self._pending: queue.Queue[_Call] = queue.Queue()
        self.has_foreground = False
        """Whether a foreground thread calls `answer_pending` regularly; without one, questions are asked directly."""
        self._closing: DlsError | None = None

    def close(self, error: DlsError) -> None:
        """Let every question fail with this error, those that wait and those to come; one being asked goes on."""
        self._closing = error
        with contextlib.suppress(queue.Empty):
            while True:
                call = self._pending.get_nowait()
                call.error = error
                call.done.set()

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Ask in the foreground thread."""
        return bool(self._relay(lambda: self._prompter.accept_host_key(key)))

    def answer(self, question: Question) -> str:
        """Ask in the foreground thread."""
        return str(self._relay(lambda: self._prompter.answer(question)))

    def tell(self, text: str) -> None:
        """Show the text at once: it needs no answer, so any thread may do it."""
        self._prompter.tell(text)

    def _relay(self, ask: Callable[[], object]) -> object:
        if self._closing is not None:
            raise self._closing
        if not self.has_foreground:
            return ask()  # a caller of the library, with a prompter of its own and no Ctrl-C to wait for
        call = _Call(ask)
        self._pending.put(call)
        while not call.done.wait(POLL_SECONDS):
            if (self._closing or not self.has_foreground) and self._withdraw(call):
                gone = CannotAsk("The login needs an answer, and the command no longer waits for questions.")
                raise self._closing or gone
        if call.error is not None:
            raise call.error
        return call.answer

    def _withdraw(self, call: _Call) -> bool:
        """Remove a question that no thread has begun to ask; False when one has."""
        with self._pending.mutex:
            try:
                self._pending.queue.remove(call)
            except ValueError:
                return False
        return True

    def answer_pending(self) -> None:
        """Ask one pending question, if there is one; an exception like Ctrl-C is raised here too."""
        try:
            call = self._pending.get_nowait()
        except queue.Empty:
            return
        try:
            call.answer = call.ask()
        except BaseException as error:
            call.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            call.done.set()
