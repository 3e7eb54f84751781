"""What a child `ssh` asks, as a question for the person: pure, from its words to ours.

Where `ssh` logs in to a jump host too, that is another `ssh`, which asks in the same words. Since release 8.5, each
question of a host (keyboard-interactive) begins with the account that it is about, so that no host can put it into the
words of `ssh` itself. Of an older `ssh`, nothing but what it shows is known: nothing answers such a question but the
person, each time anew.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from dls.remote.ssh.dialogue import account, host_question, name_lines
from dls.remote.ssh.prompts import NewHostKey, Question, QuestionKind
from dls.remote.ssh.target import Target
from dls.remote.ssh.wording import asks_for_password

HOST_KEY = re.compile(
    r"The authenticity of host '(?P<name>.*?)(?: \((?P<address>.*?)\))?' can't be established\.\s*"
    r"(?P<type>\S+) key fingerprint is:? ?(?P<fingerprint>\S+?)\.?\s",
    re.DOTALL,
)
"""The question about an unknown host key, in OpenSSH's words from 7 to 10."""
TYPE_YES = "Please type 'yes'"
"""Beginning of the question after an answer to the one about the host key that is none of those possible."""
KEYBOARD_INTERACTIVE = re.compile(r"\((?P<account>[^()\s]+@[^()\s]+)\) (?P<prompt>.*)", re.DOTALL)
PASSPHRASE = re.compile(r"Enter passphrase for (?:key )?'?(?P<key>[^\n]*?)'?: ?")
PASSWORD = re.compile(r"(?P<account>\S+@\S+)'s password: ?")
PIN = re.compile(r"Enter PIN for (?P<token>[^\n]*?): ?")

_numbers = itertools.count()


@dataclass(frozen=True)
class Asking:
    """A question of `ssh`, and whether the password that was given for the target is its answer."""

    question: Question
    takes_password: bool = False


def read_host_key(prompt: str) -> NewHostKey | None:
    """Return the host key that the question is about; None where it is about something else."""
    found = HOST_KEY.match(prompt)
    if found is None:
        return None
    return NewHostKey(found["name"], found["address"] or found["name"], found["type"], found["fingerprint"])


def read_question(target: Target, prompt: str, *, is_named: bool, has_jump_hosts: bool) -> Asking:
    """Return the question for the person.

    `is_named` says that this `ssh` names the account in the questions of hosts.
    """
    if not is_named:
        takes_password = not has_jump_hosts and asks_for_password(prompt, echo=False)
        return Asking(_ask_once(prompt), takes_password)
    if found := KEYBOARD_INTERACTIVE.match(prompt):
        return _ask_for_host(target, found["account"], found["prompt"])
    if found := PASSPHRASE.fullmatch(prompt):
        return Asking(Question(QuestionKind.PASSPHRASE, found["key"], f"Passphrase of the key {found['key']}: "))
    if found := PIN.fullmatch(prompt):
        return Asking(Question(QuestionKind.PASSPHRASE, found["token"], f"PIN of {found['token']}: "))
    if found := PASSWORD.fullmatch(prompt):
        name = found["account"]
        is_target = _is(target, name)
        subject = account(target) if is_target else name  # as in our own login, with the port
        return Asking(Question(QuestionKind.PASSWORD, subject, f"{name}'s password: "), is_target)
    return Asking(_ask_once(prompt))


def _ask_once(prompt: str) -> Question:
    """Return a question whose answer is used for nothing else: it equals no other one."""
    return Question(QuestionKind.HOST, f"ssh, question {next(_numbers)}", name_lines("ssh", "asks", prompt))


def _ask_for_host(target: Target, name: str, prompt: str) -> Asking:
    """Return a question in a host's words, each line with the account before it."""
    if _is(target, name):
        return Asking(host_question(target, prompt, echo=False), asks_for_password(prompt, echo=False))
    return Asking(Question(QuestionKind.HOST, name, name_lines(name, "asks", prompt)))


def _is(target: Target, name: str) -> bool:
    """Return whether the account is the target's, and not a jump host's."""
    user, _, host = name.rpartition("@")
    return user == target.user and host.lower() in (target.host.lower(), target.label.lower())
