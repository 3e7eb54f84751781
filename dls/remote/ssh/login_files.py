"""What an account's login files do to the commands that are run there, as errors: pure, without sockets.

sshd hands each command to the account's login shell, and most shells read a file of the user's first.
"""

from __future__ import annotations

from dls.credentials import redact
from dls.errors import HostError
from dls.remote.ssh.shell import MAX_OUTPUT, OutputCollector

LOGIN_FILES = "~/.bashrc, ~/.profile, ~/.zshenv, ~/.cshrc, config.fish, or one that these read"
"""The files that shells read before they run a command, as an error names them."""
LOGIN_SECONDS = 30
"""Seconds that login files may take; those that load an environment from a slow network disk take more than ten."""
DETAIL_LENGTH = 2000
"""Maximum length of what an error shows of the shell's output."""
NOT_RUN = (126, 127)
"""Exit statuses of a shell that can't run a command, or does not find it."""


def describe_output(output: str, text: str) -> str:
    """Return the end of what a shell printed, fit to be shown: without lines of the text it was sent, or secrets."""
    ours = {_simplify(line) for line in text.splitlines()}
    lines = [line for line in output.splitlines() if _simplify(line) not in ours]
    return redact("\n".join(lines))[-DETAIL_LENGTH:]


def _simplify(line: str) -> str:
    """Return the line as a shell's `read` and `echo` print it."""
    return " ".join(line.replace("\\", "").split())


def shell_error(where: str, seen: OutputCollector, status: int, stderr: str, text: str) -> HostError:
    """Return the error for a shell that ended with that status before it had run the whole script."""
    detail = describe_output(stderr or seen.noise, text)
    if seen.has_begun or (seen.login_files_have_ended and status in NOT_RUN):
        return HostError(
            f"{where} does not run commands as it should (its shell ended with status {status}).",
            "Log in by hand and check whether `sh` works there.",
            detail,
        )
    if seen.login_files_have_ended:
        return HostError(
            f"A login file on {where} reads the input of the commands that are run there ({LOGIN_FILES}).",
            "Let it ask and read only where somebody types: put `case $- in *i*) ;; *) return ;; esac` before that.",
            detail,
        )
    if seen.is_read_by_a_shell:
        return HostError(
            f"A login file on {where} starts another shell instead of running the command ({LOGIN_FILES}).",
            "Let it do so only where somebody types: case $- in *i*) exec zsh ;; esac",
            detail,
        )
    return HostError(
        f"{where} does not run commands: its shell ended with status {status} before the first one. A login file there "
        f"ends it ({LOGIN_FILES}), or the account has no shell.",
        "A login file may `exit` or `exec` only where somebody types: case $- in *i*) ;; *) return ;; esac",
        detail,
    )


def waiting_error(where: str, seen: OutputCollector, text: str) -> HostError:
    """Return the error for a host that answers, but whose login shell does not get to the command."""
    return HostError(
        f"A login file on {where} waits for something or does not end: no command ran within {LOGIN_SECONDS} s "
        f"({LOGIN_FILES}).",
        "Log in by hand and see what it waits for; it may wait only where somebody types.",
        describe_output(seen.noise, text),
    )


def endless_error(where: str, seen: OutputCollector, text: str) -> HostError:
    """Return the error for a shell that prints without end."""
    subject = "the script" if seen.has_begun else f"a login file ({LOGIN_FILES})"
    return HostError(
        f"{where} answers with more than {MAX_OUTPUT >> 20} MiB: {subject} prints without end.",
        "Log in by hand and check what its shell prints there.",
        describe_output(seen.noise, text),
    )
