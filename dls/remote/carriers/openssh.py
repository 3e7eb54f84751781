"""OpenSSH's own `ssh` as a child process that logs in, with SSH inside its standard input and output.

It knows what paramiko does not: Kerberos, smart cards, security keys in files, KnownHostsCommand, a shared connection
(ControlMaster). Host keys are its business.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from dls.errors import ConnectError, DlsError, LinkError
from dls.remote.carriers.askpass import Asked, AskpassServer
from dls.remote.carriers.inner import open_inner
from dls.remote.carriers.ssh_errors import NOISE, read_errors
from dls.remote.carriers.ssh_questions import TYPE_YES, PasswordQuestion, read_host_key, read_question
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.pipe_shell import PipeShell
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.target import Target, parse_destination

QUIET = (
    "-T", "-x", "-a", "-e", "none",
    "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none", "-o", "RequestTTY=no", "-o", "PermitLocalCommand=no",
    "-o", "Tunnel=no", "-o", "LogLevel=INFO",
)  # fmt: skip
"""Options for a connection that carries bytes only; LogLevel ERROR would hide why it fails."""
CHECK_SECONDS = 5.0
"""Seconds that a shared connection may take to say that it is there."""


def command(program: str, destination: str, options: LoginOptions) -> list[str]:
    """Return the command line of the `ssh` that runs a shell on the host."""
    parsed = parse_destination(destination)
    words = [program, *QUIET]
    words += ["-" + "v" * options.verbose] if options.verbose else []
    words += ["-o", "StrictHostKeyChecking=accept-new"] if options.accept_new_host_key else []
    return [*words, *options.ssh_arguments(parsed.user, parsed.port), "--", parsed.host, "exec sh"]


def has_master(program: str, destination: str, options: LoginOptions, target: Target) -> bool:
    """Return whether `ssh` shares a connection to the host that is open (ControlMaster)."""
    if not target.control_path or not Path(target.control_path).exists():
        return False
    parsed = parse_destination(destination)
    arguments = [program, "-O", "check", *options.ssh_arguments(parsed.user, parsed.port), "--", parsed.host]
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def open_through_ssh(
    program: str,
    destination: str,
    target: Target,
    options: LoginOptions,
    prompter: Prompter,
    *,
    shared: bool = False,
) -> Connection:
    """Log in with `ssh` and open a connection inside it; `shared` says that it has an open connection to use.

    Raises a DlsError that says what `ssh` said; nothing is left open then.
    """
    with contextlib.ExitStack() as cleanup:
        askpass = cleanup.enter_context(AskpassServer()) if AskpassServer.is_possible() else None
        environment = {**os.environ, **(askpass.environment if askpass else {})}
        pipe = Pipe(
            command(program, destination, options), environment=environment, on_line=_teller(prompter, options.verbose)
        )
        try:
            dialogue = Dialogue(target, prompter, options.password)
            shell = PipeShell(pipe.socket, idle=lambda: dialogue.answer(askpass, prompter))
            credential = "the connection that ssh shares" if shared else "this computer's ssh"
            with _explained(target, pipe, shell):
                shell.start()
                connection = open_inner(
                    target, pipe.socket, shell, kind="openssh", credential=credential, carriers=(pipe,)
                )
        except BaseException:
            pipe.close()
            raise
        if not options.verbose:
            pipe.on_line = None  # what ssh says at the connection's end answers no question
        return connection


@contextlib.contextmanager
def _explained(target: Target, pipe: Pipe, shell: PipeShell) -> Iterator[None]:
    """Let an error of the stream say what `ssh` said about it."""
    try:
        yield
    except (ConnectError, LinkError) as error:
        with contextlib.suppress(subprocess.TimeoutExpired):
            pipe.process.wait(1.0)
        raise read_errors(target.label, pipe.errors, pipe.process.poll(), shell.noise) from error


def _teller(prompter: Prompter, verbose: int) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if verbose or not NOISE.match(line):
            prompter.tell(line)

    return tell


class Dialogue:
    """Answers the questions of `ssh` in the thread that waits for it, so that Ctrl-C ends them."""

    def __init__(self, target: Target, prompter: Prompter, password: str | None) -> None:
        self._target = target
        self._prompter = prompter
        self._password = password

    def answer(self, askpass: AskpassServer | None, prompter: Prompter) -> None:
        """Ask the person what `ssh` asks at the moment, if anything; raises what the prompter raises."""
        if askpass is None:
            return
        with contextlib.suppress(queue.Empty):
            asked = askpass.questions.get_nowait()
            try:
                answer = self._ask(asked)
            except DlsError:
                asked.answer(None)
                raise
            if asked.kind != "none":
                asked.answer(answer)

    def _ask(self, asked: Asked) -> str | None:
        if asked.kind == "none":
            self._prompter.tell(asked.prompt)
            return None
        if (key := read_host_key(asked.prompt)) is not None:
            return "yes" if self._prompter.accept_host_key(key) else "no"
        if asked.prompt.startswith(TYPE_YES):
            return "no"
        found = read_question(self._target, asked.prompt)
        if isinstance(found, PasswordQuestion):
            if found.is_target and self._password is not None:
                password, self._password = self._password, None
                return password
            found = found.question
        answer = self._prompter.answer(found)
        if asked.kind == "confirm":
            return "" if answer.strip().lower() in ("y", "yes") else None
        return answer
