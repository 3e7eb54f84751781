"""What a child `ssh` asks, as a question for the person: pure, from its words to ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dls.remote.ssh.dialogue import host_question
from dls.remote.ssh.prompts import NewHostKey, Question, QuestionKind
from dls.remote.ssh.target import Target

HOST_KEY = re.compile(
    r"The authenticity of host '(?P<name>.*?)(?: \((?P<address>.*?)\))?' can't be established\.\s*"
    r"(?P<type>\S+) key fingerprint is:? ?(?P<fingerprint>\S+?)\.?\s",
    re.DOTALL,
)
"""The question about an unknown host key, in OpenSSH's words from 7 to 10."""
TYPE_YES = "Please type 'yes'"
"""Beginning of the question after an answer to the one about the host key that is none of those possible."""
PASSPHRASE = re.compile(r"Enter passphrase for (?:key )?'?(?P<key>.*?)'?: ?$", re.DOTALL)
PASSWORD = re.compile(r"(?P<account>\S+@\S+)'s password: ?$")
PIN = re.compile(r"Enter PIN for (?P<token>.*?): ?$", re.DOTALL)
KEYBOARD_INTERACTIVE = re.compile(r"\((?P<account>[^()\s]+@[^()\s]+)\) (?P<prompt>.*)", re.DOTALL)
"""A question of keyboard-interactive; releases before 8.5 don't name the account."""


@dataclass(frozen=True)
class PasswordQuestion:
    """A question for a password, and whether it is the one of the user at the target."""

    question: Question
    is_target: bool


def read_host_key(prompt: str) -> NewHostKey | None:
    """Return the host key that the question is about; None where it is about something else."""
    found = HOST_KEY.search(prompt)
    if found is None:
        return None
    return NewHostKey(found["name"], found["address"] or found["name"], found["type"], found["fingerprint"])


def read_question(target: Target, prompt: str) -> Question | PasswordQuestion:
    """Return the question for the person; one that only the target's own words could be is marked with its name."""
    if found := PASSPHRASE.match(prompt):
        return Question(QuestionKind.PASSPHRASE, found["key"], f"Passphrase of the key {found['key']}: ")
    if found := PIN.match(prompt):
        return Question(QuestionKind.PASSPHRASE, found["token"], f"PIN of {found['token']}: ")
    if found := PASSWORD.search(prompt):
        account = found["account"]
        return PasswordQuestion(
            Question(QuestionKind.PASSWORD, account, f"{account}'s password: "), _is(target, account)
        )
    if found := KEYBOARD_INTERACTIVE.search(prompt):
        question = host_question(target, prompt, echo=False)
        if "password" in found["prompt"].lower():
            return PasswordQuestion(question, _is(target, found["account"]))
        return question
    return host_question(target, prompt, echo=False)


def _is(target: Target, account: str) -> bool:
    """Return whether `ssh` means the target, and not a jump host, which may ask in the same words."""
    user, _, host = account.rpartition("@")
    return user == target.user and host.lower() in (target.host.lower(), target.label.lower())
