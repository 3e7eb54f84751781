"""The whole examination: this computer, the way to the host, the login, the host."""

from __future__ import annotations

import contextlib

from dls.errors import DlsError
from dls.remote.carriers.inner import NoServerThere
from dls.remote.doctor import host, laptop, way
from dls.remote.doctor.findings import Findings
from dls.remote.host.options import ServerOptions
from dls.remote.keychain import KeychainPrompter
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import Phases, Reporter, Silent
from dls.remote.ssh.prompts import Prompter


def examine(
    destination: str, login: LoginOptions, server: ServerOptions, prompter: Prompter, reporter: Reporter
) -> Findings:
    """Examine the way to the host, with one login; without a destination, this computer alone.

    Nothing is installed, started or ended on the host. A host key that is accepted during the login is added to
    known_hosts, as it is by every login.
    """
    findings = Findings()
    reporter.begin("doctor", "Looking at this computer")
    laptop.examine(findings)
    if not (destination or login.via):
        return findings
    reporter.begin("doctor", f"Looking at the way to {destination or 'the host'}")
    if not login.via and not way.examine(destination, login, findings):
        return findings
    quiet = _Quiet(reporter)
    keychain = KeychainPrompter(prompter, saves=False)
    try:
        connection = log_in(destination, login, keychain, Phases(quiet), installs=False)
    except NoServerThere as error:
        findings.unknown("login", f"{error.message} Nothing more was looked at.")
        return findings
    except DlsError as error:
        findings.fail("login", error)
        return findings
    with contextlib.closing(connection):
        findings.ok("login", f"{connection.target}, with {connection.credential}")
        for note in quiet.notes:
            findings.warn("login", note)
        reporter.begin("doctor", f"Looking at {connection.target.label}")
        host.examine(connection, destination, login, server, findings)
    return findings


class _Quiet(Silent):
    """Keeps the notes of a login for the table, and shows what it is doing."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.notes: list[str] = []

    def begin(self, phase: str, text: str) -> None:
        """Show that a phase starts."""
        self._reporter.begin(phase, text)

    def update(self, text: str) -> None:
        """Show what the phase is doing."""
        self._reporter.update(text)

    def note(self, text: str) -> None:
        """Keep the note."""
        self.notes.append(text)
