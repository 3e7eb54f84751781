"""Questions in rounds: texts without a question, wrong answers, and the password that is given as an option."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dls.demo import sshd
from dls.errors import LoginError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompters import BatchPrompter
from dls.remote.ssh.prompts import CannotAsk, NoPrompter
from dls.remote.ssh.target import Target
from dls.remote.ssh.wording import asks_for_password
from tests.support.logins import PASSWORD, target_of
from tests.support.one_time_codes import OnlyQuestions
from tests.support.prompters import ScriptedPrompter


class Rounds(OnlyQuestions):
    """A login in rounds; each is a text and its questions, and what it takes to get to the next one."""

    rounds: tuple[tuple[str, list[tuple[str, bool]], list[str]], ...] = ()
    position = 0

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        self.position = 0
        text, questions, _ = self.rounds[0]
        return "", text, "", questions

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        if list(responses) != self.rounds[self.position][2]:
            return False
        self.position += 1
        if self.position == len(self.rounds):
            return True
        text, questions, _ = self.rounds[self.position]
        return "", text, "", questions


class NumberToMatch(Rounds):
    rounds = (("Number to match: 42", [], []), ("", [], []))


class ExpiredPassword(Rounds):
    rounds = (
        ("", [("Password: ", False)], [PASSWORD]),
        (
            "Your password has expired.",
            [("Current password: ", False), ("New password: ", False), ("Retype new password: ", False)],
            [PASSWORD, "n3w", "n3w"],
        ),
    )


class PasswordOnly(Rounds):
    rounds = (("", [("Password: ", False)], [PASSWORD]),)


@pytest.fixture
def asking(short_folder: Path, request: pytest.FixtureRequest) -> Iterator[Target]:
    """A server with the login given as parameter, as a target."""
    with sshd.running(short_folder, library=True, login=request.param) as server:
        yield target_of(server)
    gc.collect()  # a connection that the server left open shows here, not in another test


@pytest.mark.parametrize("asking", [NumberToMatch], indirect=True)
def test_a_text_without_a_question(asking: Target) -> None:
    """What the host says is shown with its name, and nobody is asked."""
    person = ScriptedPrompter()
    Connection.open(asking, person).close()
    assert person.told == [f"{asking} says: Number to match: 42"] and person.asked == []


@pytest.mark.parametrize("asking", [ExpiredPassword], indirect=True)
def test_a_password_is_changed_in_questions(asking: Target) -> None:
    """The given password answers the question for it once; the person is asked for the new one, after PAM's reason."""
    person = ScriptedPrompter({"Current": PASSWORD, "ew password": "n3w"})
    Connection.open(asking, person, password=PASSWORD).close()
    assert person.host_questions == ["Current password: ", "New password: ", "Retype new password: "]
    assert person.told == [f"{asking} says: Your password has expired."]


@pytest.mark.parametrize("asking", [PasswordOnly], indirect=True)
def test_a_wrong_answer_is_named_before_the_next_question(asking: Target) -> None:
    """After a wrong answer the person is told so, and asked again as often as the configuration says."""
    person = ScriptedPrompter({"Password": ["hunter2", PASSWORD]})
    Connection.open(asking, person).close()
    assert person.told == [f"{asking} did not accept that password."]
    person = ScriptedPrompter({"Password": "hunter2"})
    with pytest.raises(LoginError) as caught:
        Connection.open(replace(asking, password_prompts=2), person)
    assert len(person.asked) == 2 and "a password  not accepted, 2 times" in caught.value.detail


@pytest.mark.parametrize("asking", [PasswordOnly], indirect=True)
def test_a_given_password_that_is_wrong(asking: Target) -> None:
    """It is offered once; then the person is asked, or, where nobody can be, the error names the option."""
    with pytest.raises(LoginError, match="did not accept the password that was given") as caught:
        Connection.open(asking, NoPrompter(), password="hunter2")
    assert "--password-file" in caught.value.hint and "hunter2" not in str(vars(caught.value))
    person = ScriptedPrompter({"Password": PASSWORD})
    Connection.open(asking, person, password="hunter2").close()
    assert person.told == [f"{asking} did not accept the given password."]


@pytest.mark.parametrize("asking", [PasswordOnly], indirect=True)
def test_batch_mode(asking: Target) -> None:
    """BatchMode asks nothing and says why; what the host says is shown all the same."""
    person = ScriptedPrompter()
    with pytest.raises(CannotAsk, match="BatchMode forbids"):
        Connection.open(asking, BatchPrompter(person))
    BatchPrompter(person).tell("Welcome")
    assert person.told == ["Welcome"]


@pytest.mark.parametrize("asking", [PasswordOnly], indirect=True)
def test_the_order_of_methods(asking: Target) -> None:
    """A method that the configuration leaves out is not tried, and the error says that it is forbidden."""
    with pytest.raises(LoginError) as caught:
        Connection.open(replace(asking, methods=("publickey",)), ScriptedPrompter())
    assert "PreferredAuthentications" in caught.value.hint


def test_which_question_the_given_password_answers() -> None:
    """The question for the present password, and none for another or a visible answer."""
    assert asks_for_password("Password: ", echo=False) and asks_for_password("ann@gpu's password:", echo=False)
    assert not asks_for_password("New password: ", echo=False)
    assert not asks_for_password("Retype new password: ", echo=False)
    assert not asks_for_password("Password: ", echo=True)
    assert not asks_for_password("Verification code: ", echo=False)
