"""The licence of the weights: asked for once, and never without somebody to answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dls
from dls.demo import sshd
from dls.errors import TargetError
from dls.remote.licence import NAME, TEXT, Licence, needs_agreement
from dls.remote.ssh.prompts import NoPrompter, Question, QuestionKind
from dls.remote.user import memory
from tests.cli.test_host import run_on_terminal
from tests.remote.host.test_odd_hosts import program
from tests.support.command_line import run_dls
from tests.support.connecting import RecordingReporter

A100 = "echo '0, NVIDIA A100, 40960, 40000, 580.65, 8.0'"


class Person(NoPrompter):
    """Answers from a list."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.questions: list[Question] = []

    def answer(self, question: Question) -> str:
        self.questions.append(question)
        return self.answers.pop(0)


def test_it_is_about_weights_of_the_hub() -> None:
    """A folder of the user's own and the region engine need no agreement."""
    assert needs_agreement("nninteractive", None) and needs_agreement("nninteractive", "nnInteractive_v1.0")
    for model in ("/own/model", "C:\\own"):
        assert not needs_agreement("nninteractive", model)
    assert not needs_agreement("region", None) and not needs_agreement("auto", None)


def test_it_is_asked_for_once(own_user_folder: Path) -> None:
    """The text, the licence's address and the citation are in the first question; a second command asks nothing."""
    person, notes = Person("Yes"), list[str]()
    licence = Licence(person, notes.append, "auto", None)
    licence.require("region")
    assert person.questions == []
    licence.require("nninteractive")
    [first] = person.questions
    assert first.kind is QuestionKind.CONSENT and first.echo and first.prompt.startswith(TEXT)
    assert "creativecommons.org" in TEXT and "arXiv:2503.08373" in TEXT and NAME in TEXT
    assert max(map(len, TEXT.splitlines())) < 80
    licence.require("nninteractive")
    Licence(NoPrompter(), notes.append, "nninteractive", None).require("nninteractive")
    assert len(person.questions) == 1 and notes == []


@pytest.mark.parametrize("answer", ["no", "", "secret"])
def test_a_no(answer: str, own_user_folder: Path) -> None:
    """Nothing is remembered, neither of a no nor of what a program answers to every question."""
    with pytest.raises(TargetError, match="was not agreed to"):
        Licence(Person(answer), lambda _: None, "auto", None).require("nninteractive")
    assert not memory.has_agreed(NAME)


def test_an_option_agrees(own_user_folder: Path) -> None:
    """It shows the text all the same, once, and is remembered."""
    notes: list[str] = []
    for _ in range(2):
        Licence(None, notes.append, "auto", None, accept=True).require("nninteractive")
    assert notes == TEXT.splitlines() and memory.has_agreed(NAME)


def test_what_can_not_be_written_is_told(own_user_folder: Path) -> None:
    """The user has agreed, and learns that the question will come again."""
    own_user_folder.write_text("a file where the folder would be")
    notes: list[str] = []
    licence = Licence(Person("yes"), notes.append, "auto", None)
    licence.require("nninteractive")
    licence.require("nninteractive")
    assert len(notes) == 1 and "asked for again" in notes[0]


def test_a_named_engine_is_refused_before_the_login(own_user_folder: Path) -> None:
    """Without a terminal the command names the option, and nobody has typed a code in vain."""
    done = run_dls("connect", "--engine", "nninteractive", "no-such-host.invalid")
    assert done.returncode == 10 and "--accept-licence" in done.stderr and "no-such-host" not in done.stderr
    assert "--engine region" not in done.stderr
    agreed = run_dls("connect", "--engine", "nninteractive", "--accept-licence", "no-such-host.invalid")
    assert agreed.returncode == 11 and "creativecommons.org" in agreed.stderr
    assert "creativecommons" not in run_dls("connect", "--engine", "nninteractive", "no-such-host.invalid").stderr


def test_serve_is_refused_without_a_terminal(own_user_folder: Path) -> None:
    """`dls serve` downloads nothing that was not agreed to."""
    done = run_dls("serve", "-p", "0", "--engine", "nninteractive")
    assert done.returncode == 10 and "--accept-licence" in done.stderr


@contextmanager
def gpu_host(folder: Path) -> Iterator[sshd.Server]:
    """A host on which `nvidia-smi` shows a GPU that can run nnInteractive."""
    path = f"{program(folder, 'nvidia-smi', A100)}:{os.environ['PATH']}"
    (folder / "sshd").mkdir()
    with sshd.running(folder / "sshd", options=f"SetEnv PATH={path}") as server:
        yield server


@pytest.mark.slow
def test_auto_on_a_host_with_a_gpu(short_folder: Path, own_user_folder: Path) -> None:
    """It neither hangs nor installs: without a terminal it names both options, at one it asks; the library too."""
    with gpu_host(short_folder) as server:
        words = ["connect", "-F", str(server.config), "--remote-dir", f"{short_folder}/r", "dls-demo"]
        done = run_dls(*words)
        assert done.returncode == 10, done.stderr
        assert "--accept-licence" in done.stderr and "--engine region" in done.stderr
        code, shown = run_on_terminal(words, {"(yes/no): ": "no"})
        assert code == 10 and "was not agreed to" in shown and "NVIDIA A100" in shown
        login = dls.LoginOptions(ssh_config=server.config, remote_dir=f"{short_folder}/r")
        with pytest.raises(TargetError, match="no terminal"):
            dls.connect("dls-demo", login=login, reporter=RecordingReporter())
    assert not (short_folder / "r").exists() and not memory.has_agreed(NAME)
