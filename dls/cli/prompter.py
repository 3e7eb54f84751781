"""The questions of a login at the terminal, and what a host says of itself; everything passes `printable`."""

from __future__ import annotations

import getpass
import sys
from typing import Protocol

from dls.cli.text import printable
from dls.remote.ssh.prompts import NewHostKey, NoPrompter, Question, QuestionKind

MAX_OTHER_NAMES = 8
"""Maximum number of a host key's other names that are shown, as in OpenSSH."""


class Screen(Protocol):
    """The reporter, as far as questions need it."""

    def close(self) -> None:
        """Stop the spinner, which would paint over the question."""

    def note(self, text: str) -> None:
        """Show a message."""


class TerminalPrompter:
    """Asks the user on the terminal."""

    def __init__(self, reporter: Screen) -> None:
        self._reporter = reporter
        self.told: set[str] = set()
        """The lines that were shown."""

    def accept_host_key(self, key: NewHostKey) -> bool:
        """Show a new host key as OpenSSH does, and ask whether to accept it."""
        self._reporter.close()
        sys.stderr.write(
            f"The authenticity of host '{printable(f'{key.known_hosts_name} ({key.address})')}' can't be established.\n"
            f"{printable(key.key_type)} key fingerprint is {printable(key.fingerprint)}.\n"
            f"{_describe_other_names(key)}\n"
        )
        answer = read_line("Are you sure you want to continue connecting (yes/no/[fingerprint])? ")
        while (accepted := key.read_answer(answer)) is None:
            if answer.startswith("SHA256:"):
                sys.stderr.write("That is not the fingerprint of this key.\n")
            answer = read_line("Please type 'yes', 'no' or the fingerprint: ")
        return accepted

    def answer(self, question: Question) -> str:
        """Ask for a secret, without echo, for what the host wants to know (RFC 4256), or for yes or no."""
        self._reporter.close()
        prompt = printable(question.prompt, lines=True)
        if question.kind is QuestionKind.CONSENT:
            return _read_yes_or_no(prompt)
        return read_line(prompt) if question.echo else _read_hidden(prompt)

    def tell(self, text: str) -> None:
        """Show what the host says."""
        self.told |= tell(self._reporter, text)


class UnattendedPrompter(NoPrompter):
    """Asks nothing, since there is no terminal, and shows what the host says."""

    def __init__(self, reporter: Screen) -> None:
        self._reporter = reporter
        self.told: set[str] = set()
        """The lines that were shown."""

    def tell(self, text: str) -> None:
        """Show what the host says."""
        self.told |= tell(self._reporter, text)


class _StandardError:
    """A screen without a spinner."""

    def close(self) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Write the line to standard error."""
        sys.stderr.write(f"{printable(text)}\n")


def is_interactive() -> bool:
    """Return whether somebody can be asked: standard input and error are a terminal."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def choose_prompter(screen: Screen | None = None) -> TerminalPrompter | UnattendedPrompter:
    """Return a prompter that asks at the terminal, or one that asks nothing where there is none."""
    screen = screen or _StandardError()
    return TerminalPrompter(screen) if is_interactive() else UnattendedPrompter(screen)


def _describe_other_names(key: NewHostKey) -> str:
    if not key.other_names:
        return "This key is not known by any other names."
    names = [f"    {printable(name)}" for name in key.other_names[:MAX_OTHER_NAMES]]
    left = len(key.other_names) - len(names)
    more = [f"    ({left} additional names omitted)"] if left else []
    return "\n".join(["This host key is known by the following other names/addresses:", *names, *more])


def tell(reporter: Screen, text: str) -> set[str]:
    """Show each line of what a host says; returns the lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        reporter.note(line)
    return set(lines)


def read_line(prompt: str) -> str:
    """Ask for a line at the terminal, and return it without the space around it; Ctrl-D is KeyboardInterrupt."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:  # Ctrl-D
        raise KeyboardInterrupt
    return line.strip()


def _read_yes_or_no(prompt: str) -> str:
    answer = read_line(prompt).lower()
    while answer not in ("yes", "y", "no", "n", ""):
        answer = read_line("Please type 'yes' or 'no': ").lower()
    return "yes" if answer.startswith("y") else "no"


def _read_hidden(prompt: str) -> str:
    try:
        return getpass.getpass(prompt, stream=sys.stderr)
    except EOFError:  # Ctrl-D
        raise KeyboardInterrupt from None
