"""OpenSSH's own `ssh` as a child process that logs in, with SSH inside its standard input and output.

It knows what paramiko does not: Kerberos, smart cards, security keys in files, KnownHostsCommand, a shared connection
(ControlMaster). Host keys are its business.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

from dls.errors import ConnectError, LinkError, LoginError
from dls.remote.carriers.askpass import AskpassServer
from dls.remote.carriers.inner import InnerServer
from dls.remote.carriers.relay import Relay
from dls.remote.carriers.ssh_answers import SshAnswers
from dls.remote.carriers.ssh_errors import NOISE, read_errors
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.pipe_shell import PipeShell
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.target import Target

QUIET = (
    "-T", "-x", "-a", "-e", "none",
    "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none", "-o", "RequestTTY=no", "-o", "PermitLocalCommand=no",
    "-o", "Tunnel=no", "-o", "LogLevel=INFO",
)  # fmt: skip
"""Options for a connection that carries bytes only; LogLevel ERROR would hide why it fails."""
CHECK_SECONDS = 5.0
"""Seconds that a shared connection may take to say that it is there."""


def command(program: str, target: Target, options: LoginOptions, *, shared: bool, proxy: str = "") -> list[str]:
    """Return the command line of the `ssh` that runs a shell on the host.

    `shared` says that it has an open connection to use, and `proxy` is a command that leads to the host.
    """
    words = [program, *QUIET, *(word for setting in target.session_settings for word in ("-o", setting))]
    words += ["-" + "v" * options.verbose] if options.verbose else []
    words += ["-o", "StrictHostKeyChecking=accept-new"] if options.accept_new_host_key else []
    # With "yes", ssh would not use the connection that is there, but log in itself.
    words += ["-o", "ControlMaster=no"] if shared else []
    words += ["-o", f"ProxyCommand={proxy}", "-o", "ProxyUseFdpass=no"] if proxy else []
    # ssh refuses -J beside a ProxyCommand.
    given = replace(options, jump=None) if proxy else options
    return [*words, *given.ssh_arguments(target.user, target.port), "--", target.label, "exec sh"]


def has_master(program: str, target: Target, options: LoginOptions) -> bool:
    """Return whether `ssh` shares a connection to the host that is open (ControlMaster)."""
    arguments = [program, "-O", "check", *options.ssh_arguments(target.user, target.port), "--", target.label]
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def open_through_ssh(
    program: str,
    target: Target,
    options: LoginOptions,
    prompter: Prompter,
    phase: Phase,
    *,
    shared: bool = False,
    jump_host: Connection | None = None,
    installs: bool = True,
) -> Connection:
    """Log in with `ssh` and open a connection inside it; `shared` says that it has an open connection to use.

    `jump_host` is a connection through which `ssh` is to reach the host; without one it finds its own way. Raises a
    DlsError that says what `ssh` said; nothing is left open then.
    """
    with contextlib.ExitStack() as cleanup:
        askpass = cleanup.enter_context(AskpassServer()) if AskpassServer.is_possible() else None
        environment = {**os.environ, **(askpass.environment if askpass else {})}
        tell = _teller(prompter, options.verbose)
        failed = cleanup.enter_context(contextlib.ExitStack())  # what is closed unless the connection is open
        relay = Relay.open(jump_host, target) if jump_host else None
        if relay is not None:
            failed.callback(relay.close)
        words = command(program, target, options, shared=shared, proxy=relay.command if relay else "")
        pipe = Pipe(words, environment=environment, on_line=tell, asks_at_console=askpass is None)
        failed.callback(pipe.close)
        inner = InnerServer(
            kind="openssh",
            credential="the connection that ssh shares" if shared else "this computer's ssh",
            carriers=(pipe, *([relay] if relay else [])),
            remote_dir=options.remote_dir,
            installs=installs,
            phase=phase,
        )
        answers = SshAnswers(target, prompter, options.password, accept_new=options.accept_new_host_key)
        shell = PipeShell(target, pipe.socket, idle=lambda: answers.give(askpass))
        with _explained(target, pipe, shell, answers):
            shell.start()
            connection = inner.open(target, pipe.socket, shell)
        failed.pop_all()
        if not options.verbose:
            pipe.on_line = None  # what ssh says at the connection's end answers no question
        return connection


@contextlib.contextmanager
def _explained(target: Target, pipe: Pipe, shell: PipeShell, answers: SshAnswers) -> Iterator[None]:
    """Let an error of the stream say what `ssh` said about it."""
    try:
        yield
    except (ConnectError, LinkError) as error:
        status = pipe.wait()
        found = read_errors(target.label, pipe.errors, status, shell.noise)
        if isinstance(found, LoginError) and answers.unanswered is not None:
            raise answers.unanswered from error
        raise found from error


def _teller(prompter: Prompter, verbose: int) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if verbose or not NOISE.match(line):
            prompter.tell(line)

    return tell
