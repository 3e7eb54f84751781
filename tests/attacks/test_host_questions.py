"""A host that asks for what belongs to another: a local key's passphrase, another host's password."""

from __future__ import annotations

import gc
import subprocess
from pathlib import Path
from typing import Any

import pytest

import dls
from dls.demo import sshd
from dls.remote.ssh.dialogue import host_question
from dls.remote.ssh.prompters import CachingPrompter
from dls.remote.ssh.prompts import Question, QuestionKind
from dls.remote.ssh.target import Target
from tests.support.connecting import cut
from tests.support.itksnap import ItkSnap
from tests.support.one_time_codes import CUT_SHORT
from tests.support.processes import free_port, until
from tests.support.prompters import ScriptedPrompter


class Thief:
    """A login that takes a key the first time, and asks for its passphrase, in dls' own words, from then on."""

    question = ""
    has_logged_in = False

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return not self.has_logged_in

    def validate_public_key(self, username: str, key: Any) -> bool:
        return True

    def auth_completed(self) -> None:
        type(self).has_logged_in = True

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return self.has_logged_in

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", [(self.question, False)]


@CUT_SHORT
def test_a_host_does_not_get_the_passphrase_of_a_local_key(remote_dir: str, short_folder: Path) -> None:
    """Row 3: a host that drops the link and asks for a local key's passphrase, in the words in which dls asked for it,
    is not answered from memory; the person is asked, and sees on each line that it is the host who asks."""
    key = short_folder / "id_ed25519"
    received: list[str] = []

    class PassphraseThief(Thief):
        question = f"Passphrase of the key {key}: "

        def validate_kbdint_response(self, username: str, responses: Any) -> Any:
            received.extend(responses)
            return True

    person = ScriptedPrompter({"asks: ": "not yours", "Passphrase of the key": "open sesame"})
    with sshd.running(short_folder, library=True, login=PassphraseThief) as server:
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", str(key)], check=True)
        login = dls.LoginOptions(ssh_config=server.config, remote_dir=remote_dir)
        session = dls.connect("dls-demo", login=login, local_port=free_port(), prompter=person)
        assert person.prompts == [f"Passphrase of the key {key}: "] and received == []
        cut(session)
        until(lambda: received)
        assert len(person.prompts) == 2
        assert received == ["not yours"]
        assert str(session.connection.target) in person.prompts[1]
        assert all(" asks: " in line for line in person.prompts[1].splitlines())
        assert ItkSnap(session.port).start()
        session.close(stop_server=True)
    gc.collect()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028"])
def test_each_line_of_a_question_names_its_host(end: str) -> None:
    """Row 3: a question of several lines can't end with one that looks like a question of dls."""
    question = host_question(Target("gpu", "gpu1", 22, "ann"), f"Hello{end}{end}Passphrase of the key /k: ", echo=False)
    assert question.prompt == "ann@gpu asks: Hello\nann@gpu asks: Passphrase of the key /k: "
    assert question.kind is QuestionKind.HOST and question.subject == "ann@gpu1:22"


def test_an_answer_is_given_to_the_same_question_only() -> None:
    """Row 3: what was answered to one user, host, port or key, or to one kind of question, is not given to another."""
    person = ScriptedPrompter({"": "secret"})
    memory = CachingPrompter(person)
    questions = [
        Question(QuestionKind.PASSPHRASE, "/k", "Passphrase: "),
        Question(QuestionKind.PASSPHRASE, "/other", "Passphrase: "),
        Question(QuestionKind.PASSWORD, "ann@gpu1:22", "Passphrase: "),
        *(Question(QuestionKind.HOST, f"{where}", "Passphrase: ") for where in ("ann@gpu1:22", "ann@gpu1:2222", "/k")),
    ]
    for question in questions:
        memory.answer(question)
    assert len(person.asked) == len(questions)
    memory.login_accepted()
    for question in questions:
        memory.answer(question)
    assert len(person.asked) == len(questions)
