"""A command of this computer that runs another one on the host, as `docker exec -i NAME` does, with SSH inside it."""

from __future__ import annotations

import os
import shlex
import shutil

from dls.errors import ConnectError, LinkError, TargetError
from dls.remote.carriers.inner import InnerServer
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.options import join_words
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.pipe_shell import PipeShell
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.target import Target


def split(command: str) -> list[str]:
    """Return the words of the command; raises TargetError for one that has none, or an open quote."""
    try:
        words = shlex.split(command, posix=os.name != "nt")
    except ValueError as error:
        raise TargetError(f"--via {command!r} can't be understood: {error}.", "Close the quote.") from None
    if not words:
        raise TargetError("--via names no command.", 'Name one, as "docker exec -i NAME".')
    return [word.strip('"') for word in words] if os.name == "nt" else words


def name_of(command: str) -> str:
    """Return a name for the host that the command leads to: its last word that is no option."""
    return next((word for word in reversed(split(command)) if not word.startswith("-")), "host")


def open_via(
    label: str, command: str, remote_dir: str, prompter: Prompter, phase: Phase, *, installs: bool = True
) -> Connection:
    """Run a shell on the host by the command and open a connection inside it; leaves nothing open when it fails."""
    words = split(command)
    # Windows itself finds programs alone, and not scripts such as gcloud.cmd.
    pipe = Pipe([shutil.which(words[0]) or words[0], *words[1:], "sh"], on_line=prompter.tell)
    target = Target(label, label, 22, "")
    shell = PipeShell(target, pipe.socket)
    inner = InnerServer(
        kind="via", credential=words[0], carriers=(pipe,), remote_dir=remote_dir, phase=phase, installs=installs
    )
    try:
        shell.start()
        connection = inner.open(target, pipe.socket, shell)
    except (ConnectError, LinkError) as error:
        failure = _failed(words, pipe, shell.noise)
        pipe.close()
        raise failure from error
    except BaseException:
        pipe.close()
        raise
    pipe.on_line = None
    return connection


def _failed(words: list[str], pipe: Pipe, said: str) -> ConnectError:
    status = pipe.wait()
    ended = "" if status is None else f"ended with status {status} and "
    return ConnectError(
        f"The command of --via {ended}ran no shell.",
        f"It has to pass its input on to a command there. Run it by hand: {join_words([*words, 'sh'])}",
        "\n".join(line for line in (said.strip(), pipe.errors.strip()) if line)[-2000:],
    )
