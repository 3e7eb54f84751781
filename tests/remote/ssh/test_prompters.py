"""Questions of a background thread are asked in the foreground thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dls.remote.ssh.prompters import CachingPrompter, ThreadedPrompter
from dls.remote.ssh.prompts import CannotAsk, NewHostKey, Question, QuestionKind
from tests.support.processes import until
from tests.support.prompters import ScriptedPrompter


def ask_in_background(prompter: ThreadedPrompter) -> Callable[[], object]:
    """Ask for a password in a second thread; return a function that waits for its answer or its exception."""
    results: list[object] = []

    def ask() -> None:
        try:
            results.append(prompter.answer(Question(QuestionKind.PASSWORD, "ann@gpu:22", "Password: ")))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=ask)
    thread.start()

    def result() -> object:
        thread.join(30)
        return results[0]

    return result


def test_without_a_foreground_thread_the_question_is_asked_directly() -> None:
    """A caller of the library has no thread that waits for questions."""
    person = ScriptedPrompter({"Password": "sesame"})
    assert ask_in_background(ThreadedPrompter(person))() == "sesame"
    assert person.threads != {threading.current_thread().name}


@pytest.mark.parametrize("answer", ["sesame", CannotAsk("There is no terminal.")])
def test_the_foreground_thread_asks(answer: str | CannotAsk) -> None:
    """The answer, or the error of the question, goes to the background thread."""
    person = ScriptedPrompter({"Password": answer})
    prompter = ThreadedPrompter(person)
    prompter.has_foreground = True
    result = ask_in_background(prompter)
    until(prompter._pending.qsize)
    prompter.answer_pending()
    assert result() is answer
    assert person.threads == {threading.current_thread().name}


def test_ctrl_c_ends_both_threads() -> None:
    """Ctrl-C at a question is raised in the foreground thread, and ends the login of the background thread."""
    prompter = ThreadedPrompter(ScriptedPrompter({"Password": KeyboardInterrupt()}))
    prompter.has_foreground = True
    result = ask_in_background(prompter)
    until(prompter._pending.qsize)
    with pytest.raises(KeyboardInterrupt):
        prompter.answer_pending()
    assert isinstance(result(), KeyboardInterrupt)


def test_a_question_ends_when_the_foreground_thread_leaves() -> None:
    """A background thread does not wait forever for an answer that nobody will give; the question is withdrawn."""
    person = ScriptedPrompter()
    prompter = ThreadedPrompter(person)
    prompter.has_foreground = True
    result = ask_in_background(prompter)
    until(prompter._pending.qsize)
    prompter.has_foreground = False
    assert isinstance(result(), CannotAsk)
    prompter.answer_pending()
    assert not person.asked


def test_a_host_key_that_was_accepted_is_not_asked_about_again() -> None:
    """A key that could not be kept in known_hosts is accepted again after a lost link; another key is asked about."""
    person = ScriptedPrompter(accept_host_keys=True)
    memory = CachingPrompter(person)
    first, other = (NewHostKey("gpu", "gpu", "ssh-ed25519", fingerprint) for fingerprint in ("SHA256:a", "SHA256:b"))
    assert [memory.accept_host_key(key) for key in (first, first, other)] == [True, True, True]
    assert person.host_keys == [first, other]
    refusing = ScriptedPrompter(accept_host_keys=False)
    memory = CachingPrompter(refusing)
    assert [memory.accept_host_key(first) for _ in range(2)] == [False, False] and len(refusing.host_keys) == 2
