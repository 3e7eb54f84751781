"""A way in, and the two clients that take it side by side: OpenSSH's `ssh` and ours."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import click
import pytest
from _pytest.mark import ParameterSet

from dls.cli.login_options import build_login_options, login_options
from dls.errors import DlsError
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.prompts import NoPrompter
from tests.support import secrecy
from tests.support.askpass import Askpass
from tests.support.openssh import Server
from tests.support.prompters import ScriptedPrompter

Answers = Mapping[str, str | Sequence[str]]
"""What a person types, by a part of the question that both clients' questions have."""

JARGON = re.compile(r"Traceback|\b\w*(Error|Exception)\b|NoneType|dls made a mistake")
"""Words of the library or of Python, which tell a person nothing."""


@dataclass(frozen=True)
class Way:
    """A configuration in which a host is defined, and what it takes to reach it."""

    config: Path
    servers: tuple[Server, ...] = ()
    """All the servers on the way; their logs say how often each was logged in to."""
    env: Mapping[str, str] = field(default_factory=dict)
    """What the client needs in its environment: the agent's socket, the Kerberos ticket, the smart card."""


@dataclass(frozen=True)
class Outcome:
    """What became of one try to log in and to run `echo hi`."""

    entered: bool
    said: str
    """All that was shown to the person: errors, hints, notes, the host's texts; no questions."""
    asked: tuple[str, ...]
    """The questions in order."""
    logins: tuple[int, ...]
    """How often each server of the way was logged in to."""
    exit_code: int = 0


class Client(Protocol):
    """Something that logs in."""

    name: str

    def enter(
        self,
        way: Way,
        *options: str,
        host: str = "lab",
        answers: Answers | None = None,
        accept_host_key: bool | None = None,
    ) -> Outcome:
        """Log in with the command's options and run `echo hi`; without answers nobody can be asked."""


class OpenSsh:
    """OpenSSH's own client."""

    name = "ssh"

    def enter(
        self,
        way: Way,
        *options: str,
        host: str = "lab",
        answers: Answers | None = None,
        accept_host_key: bool | None = None,
    ) -> Outcome:
        """Run `ssh HOST echo hi`."""
        script: dict[str, str | Sequence[str]] = dict(answers or {})
        if accept_host_key is not None:
            script["(yes/no"] = "yes" if accept_host_key else "no"
        is_batch = answers is None and accept_host_key is None
        before = [server.logins for server in way.servers]
        with tempfile.TemporaryDirectory(prefix="dls-askpass-") as folder:
            askpass = Askpass(Path(folder), script)
            batch = ["-o", "BatchMode=yes"] if is_batch else []
            done = subprocess.run(
                ["ssh", "-F", str(way.config), *options, *batch, host, "echo", "hi"],
                env={**os.environ, **way.env, **askpass.env},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=60,
                check=False,
                start_new_session=True,
            )
            asked = tuple(askpass.asked)
        is_in = done.returncode == 0 and done.stdout.splitlines()[-1:] == ["hi"]
        return Outcome(is_in, done.stdout + done.stderr, asked, _since(way, before), done.returncode)


class Dls:
    """Our client: the login under every command, with the options as the command line takes them.

    The name stands in the tests' names, and the options are added to those of each login. Every login is watched: no
    secret stands in what is shown or in the arguments of a program that is started.
    """

    def __init__(self, name: str = "dls", *options: str) -> None:
        self.name = name
        self._options = options

    def enter(
        self,
        way: Way,
        *options: str,
        host: str = "lab",
        answers: Answers | None = None,
        accept_host_key: bool | None = None,
    ) -> Outcome:
        """Log in and run `echo hi` over the connection."""
        transcript = Transcript()
        nobody = answers is None and accept_host_key is None
        prompter = Nobody(transcript) if nobody else Person(transcript, answers, accept_host_key)
        before = [server.logins for server in way.servers]
        output, code = "", 0
        with pytest.MonkeyPatch.context() as environment, secrecy.watching() as started:
            for name, value in way.env.items():
                environment.setenv(name, value)
            try:
                connection = log_in(host, parse_login(way, *self._options, *options), prompter, Phases(transcript))
                try:
                    output = connection.run("echo hi").stdout
                finally:
                    connection.close()
            except DlsError as error:
                transcript.texts += [error.message, error.hint, error.detail]
                code = error.exit_code
        asked = tuple(prompter.prompts) if isinstance(prompter, Person) else ()
        assert_kept(_secrets(answers), [*transcript.texts, *started])
        said = "\n".join(transcript.texts)
        assert JARGON.search(said) is None, said
        return Outcome(output.strip() == "hi", said, asked, _since(way, before), code)


CARRIED = Dls("carried", "--carrier", "openssh")
"""Our client with OpenSSH's as its carrier, which it chooses by itself where paramiko does not suffice."""


def parameters(*clients: Client) -> list[ParameterSet]:
    """Return the clients as parameters of a fixture; all but ours are for full runs: they prove that a lab is right."""
    slow = [pytest.mark.slow]
    return [pytest.param(client, id=client.name, marks=[] if client.name == "dls" else slow) for client in clients]


class Transcript(Silent):
    """Keeps all that a reporter is told to show."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def begin(self, phase: str, text: str) -> None:
        self.texts.append(text)

    def update(self, text: str) -> None:
        self.texts.append(text)

    def done(self, phase: str, text: str, seconds: float) -> None:
        self.texts.append(text)

    def note(self, text: str) -> None:
        self.texts.append(text)

    def link(self, is_open: bool, text: str) -> None:
        self.texts.append(text)


class Nobody(NoPrompter):
    """Can't be asked, as at a computer without a terminal; what the host says is kept."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript

    def tell(self, text: str) -> None:
        self._transcript.texts.append(text)


class Person(ScriptedPrompter):
    """Answers from a script. What the host says is kept."""

    def __init__(self, transcript: Transcript, answers: Answers | None, accept_host_key: bool | None) -> None:
        super().__init__(answers, accept_host_keys=accept_host_key)
        self._transcript = transcript

    def tell(self, text: str) -> None:
        self._transcript.texts.append(text)


def parse_login(way: Way, *options: str) -> LoginOptions:
    """Return the options of a login as every command that logs in reads them from its command line."""
    found: list[LoginOptions] = []

    @click.command()
    @login_options
    def command(**values: Any) -> None:
        found.append(build_login_options(values))

    try:
        command.main(["-F", str(way.config), *options], standalone_mode=False)
    except click.UsageError as error:
        pytest.fail(f"the command line does not take {options}: {error.format_message()}")
    return found[0]


def assert_kept(secrets: Sequence[str], texts: Sequence[str]) -> None:
    """Fail where a secret stands in one of the texts."""
    text = secrecy.find(secrets, texts)
    assert text is None, f"a secret is shown: {text}"


def _secrets(answers: Answers | None) -> list[str]:
    """Return what the person may type; short words, such as `yes`, are no secrets."""
    typed = itertools.chain.from_iterable([a] if isinstance(a, str) else a for a in (answers or {}).values())
    return [answer for answer in typed if len(answer) > 4]


def _since(way: Way, before: list[int]) -> tuple[int, ...]:
    return tuple(server.logins - earlier for server, earlier in zip(way.servers, before, strict=True))
