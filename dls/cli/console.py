"""What the terminal shows: progress, tables and panels. The only module that imports rich.

It is also the one door between what a host says and the terminal: everything that is shown passes `printable`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console as Console
from rich.console import Group
from rich.panel import Panel
from rich.status import Status
from rich.table import Table
from rich.text import Text

from dls.cli.events import JsonReporter, write_event
from dls.cli.prompter import TerminalPrompter, UnattendedPrompter
from dls.cli.text import hint_text, printable
from dls.contract import ERROR_PREFIX, HINT_PREFIX
from dls.errors import DlsError
from dls.remote.progress import Transfer, UploadProgress
from dls.remote.ssh.prompts import Prompter

if TYPE_CHECKING:
    from dls.remote.doctor.findings import Findings
    from dls.remote.host.stored_sessions import StoredSession
    from dls.remote.session import Session


@contextlib.contextmanager
def terminal(as_json: bool = False) -> Iterator[tuple[Console, ConsoleReporter | JsonReporter, Prompter]]:
    """Yield the console, the reporter and the prompter of a command; without a terminal the prompter asks nothing.

    An error on its way out loses those lines of its detail that have been shown already.
    """
    console = stderr()
    reporter = ConsoleReporter(console)
    is_interactive = sys.stdin.isatty() and sys.stderr.isatty()
    prompter: TerminalPrompter | UnattendedPrompter
    prompter = TerminalPrompter(reporter) if is_interactive else UnattendedPrompter(reporter)
    try:
        yield console, JsonReporter(reporter) if as_json else reporter, prompter
    except DlsError as error:
        lines = error.detail.splitlines()
        error.detail = "\n".join(line for line in lines if line.strip() not in prompter.told)
        raise
    finally:
        reporter.close()


def stderr(force_color: bool = False) -> Console:
    """Return a console on standard error, for progress and messages; results go to standard output."""
    return Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=True if force_color else None)


def show_error(error: DlsError) -> None:
    """Print an error: its detail if there is one, its message and its hint."""
    console = stderr()
    if error.detail:
        console.print(Text(printable(error.detail.rstrip(), lines=True), style="dim"))
    console.print(Text.assemble((ERROR_PREFIX, "bold red"), printable(error.message)))
    if error.hint:
        console.print(Text.assemble((HINT_PREFIX, "bold"), hint_text(error.hint)))


UPLOAD_SECONDS = 1.0
"""Seconds from which an upload is shown on a terminal."""
LONG_UPLOAD_SECONDS = 10.0
"""Seconds from which the end of an upload is shown without a terminal."""


class ConsoleReporter:
    """Shows phases on a console: with a spinner on a terminal, else with a line for each phase."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._text = ""
        self._last_update = 0.0
        self._lock = threading.Lock()
        """Held while an upload is shown: several may be under way, each in its thread."""

    def begin(self, phase: str, text: str) -> None:
        """Show that a phase has started; without a terminal only for the installation, which takes long."""
        self._text = text = printable(text)
        if self._console.is_terminal:
            self.close()
            self._status = self._console.status(Text(f"{text} …"), spinner="dots")
            self._status.start()
        elif phase == "install":
            self._console.print(f"  {text} …", markup=False)

    def update(self, text: str) -> None:
        """Show the progress of the phase; without a terminal at most one line every two seconds."""
        text = printable(text)
        if self._status is not None:
            width = max(20, self._console.width - len(self._text) - 8)
            self._status.update(Text.assemble(f"{self._text} … ", (text[:width], "dim")))
        elif time.monotonic() - self._last_update > 2:
            self._last_update = time.monotonic()
            self._console.print(f"    {text}", markup=False)

    def transfer(self, transfer: Transfer) -> None:
        """Show how far the phase's transfer is, as any other progress."""
        self.update(transfer.describe())

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Show the result of a phase and its seconds."""
        self.close()
        self._console.print(Text.assemble(("✓ ", "green"), printable(text), (f"  {seconds:.2f} s", "dim")))

    def note(self, text: str) -> None:
        """Show a message that belongs to no phase."""
        self._console.print(Text.assemble(("! ", "yellow"), printable(text)))

    def link(self, is_open: bool, text: str) -> None:
        """Show that the link was lost or is open again."""
        self._console.print(Text.assemble(("✓ ", "green") if is_open else ("! ", "yellow"), printable(text)))

    def upload(self, progress: UploadProgress) -> None:
        """Show how far the upload of an image is: on a terminal in a line that changes, and its end where it took long.

        Without a terminal there is a line for the end of an upload that took really long, and for what was not sent.
        """
        text, is_terminal = progress.describe(), self._console.is_terminal
        with self._lock:
            if progress.is_over or progress.state == "resumed":
                self.close()
                long = UPLOAD_SECONDS if is_terminal else LONG_UPLOAD_SECONDS
                if progress.saved or progress.seconds >= long:
                    mark = ("! ", "yellow") if progress.state == "failed" else ("✓ ", "green")
                    self._console.print(Text.assemble(mark, text))
            elif is_terminal and progress.seconds >= UPLOAD_SECONDS:
                if self._status is None:
                    self._status = self._console.status(Text(text), spinner="dots")
                    self._status.start()
                self._status.update(Text(text))

    def close(self) -> None:
        """Stop the spinner, before a question or at the end of the command."""
        status, self._status = self._status, None
        if status is not None:
            status.stop()


def write_line(line: str) -> None:
    """Write a line of a host's log, or a path on a host, to standard output."""
    click.echo(printable(line, lines=True))


def ready_fields(session: Session) -> dict[str, Any]:
    """Return the fields of the `ready` event."""
    return {
        "server": session.server_field,
        "port": session.port,
        "url": session.url,
        "host": str(session.connection.target),
        "engine": session.state.engine,
        "device": session.state.device,
        "log": session.state.log,
        "pid": session.state.pid,
        "job": session.job and session.job.job.id,
        "seconds": {name: round(seconds, 3) for name, seconds in session.seconds.items()},
    }


def show_session(console: Console, session: Session) -> None:
    """Print a panel with the address to type into ITK-SNAP, and into other viewers where the server speaks to them."""
    target = session.connection.target
    address = Text.assemble(
        ("Server: ", "dim"),
        (session.server_field, "bold green"),
        ("     Port: ", "dim"),
        (str(session.port), "bold green"),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column()
    for name, text in list_facts(session):
        facts.add_row(name, Text(printable(text)))
    intro = Text("In ITK-SNAP, add a deep learning server with")
    viewers = [_viewers_line(session)] if session.serves_viewers else []
    console.print()
    console.print(
        Panel(
            Group(intro, Text(), address, Text(), *viewers, facts),
            title=Text(printable(f"Ready on {target}")),
            border_style="green",
            padding=(1, 2),
            expand=False,
        )
    )


def _viewers_line(session: Session) -> Group:
    """Return what to type into viewers that speak nnInteractive's own protocol."""
    line = Text.assemble(("URL: ", "dim"), (f"http://localhost:{session.port}", "bold green"))
    if session.local_secret is not None:
        line.append_text(Text.assemble(("     API key: ", "dim"), (session.local_secret, "bold green")))
    return Group(Text("In napari, 3D Slicer or MITK, use a remote nnInteractive server with"), Text(), line, Text())


def list_facts(session: Session) -> list[tuple[str, str]]:
    """Return the rows of the panel: each a name and a text."""
    state, login, label = session.state, session.login, session.connection.target.label
    facts = [("Engine", f"{state.engine} on {state.device}")]
    if session.report.gpus:
        facts.append(("GPU", "; ".join(str(gpu) for gpu in session.report.gpus)))
    if session.job is not None:
        facts.append(("Job", session.job.describe()))
    stop = login.command("stop", session.target)
    access = "It asks for the secret, which keeps other users of this computer out."
    if session.local_secret is None:
        access = "Other users of this computer can use it too; --local-secret lets it ask for a secret."
    return [
        *facts,
        ("Port", access),
        ("Log", f"{label}:{state.log}, or: {login.command('logs', session.target)}"),
        ("Stop", f"Ctrl-C closes this connection; the server keeps running. To stop it too: {stop}"),
    ]


def show_sessions(sessions: list[StoredSession], total: int, *, as_json: bool) -> None:
    """Print the stored sessions of a host to standard output, as a table or as JSON lines.

    `total` is what all that are stored there take together, in KiB.
    """
    if as_json:
        for session in sessions:
            fields = {"id": session.id, "model": session.model, "size": session.size}
            write_event("session", **fields, bytes=session.kib << 10, idle=session.idle)
        return
    if not sessions:
        sys.stdout.write("No sessions are stored there.\n")
        return
    rows = [
        (
            session.id[:8],
            session.model,
            " x ".join(map(str, session.size)) if session.size else "no image",
            f"{session.kib / 1024:.1f} MiB",
            _format_age(session.idle),
        )
        for session in sessions
    ]
    show_table(Console(), ("session", "model", "image", "on disk", "last used"), rows)
    if 1.01 * total < sum(session.kib for session in sessions):
        text = f"All together take {total / 1024:.1f} MiB: an image that several sessions have is on the disk once.\n"
        sys.stdout.write(text)


def _format_age(seconds: int) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"


def show_table(console: Console, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table with a header."""
    table = Table(*header)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


VERDICTS = {
    "ok": ("ok", "green"),
    "warning": ("look", "yellow"),
    "failed": ("FAILED", "bold red"),
    "unknown": ("?", "dim"),
}
"""How each verdict of `dls doctor` is shown: a word and its style."""


def show_findings(findings: Findings, *, as_json: bool) -> None:
    """Print what `dls doctor` found to standard output, as a table or as JSON lines."""
    if as_json:
        for finding in findings:
            fields = {"subject": finding.subject, "verdict": finding.verdict.value, "text": finding.text}
            write_event("finding", **fields, advice=finding.advice, exit_code=finding.exit_code)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for header in ("what", "", "finding", "what to do"):
        table.add_column(header, overflow="fold")
    for finding in findings:
        word, style = VERDICTS[finding.verdict.value]
        texts = (Text(printable(text, lines=True)) for text in (finding.text, finding.advice))
        table.add_row(printable(finding.subject), Text(word, style), *texts)
    Console().print(table)


def show_banner(console: Console, gpu: str, engine: str, rows: list[tuple[str, int, bool]], notes: list[str]) -> None:
    """Print the banner of `dls serve`: its GPU, engine and notes, and its addresses (server, port, local only)."""
    line = "*" * 78
    console.print(f"{' ITK-SNAP Deep Learning Segmentation Server (dls) ':*^78}", markup=False)
    console.print(f"    {printable(gpu)}", markup=False)
    console.print(f"    Engine: {printable(engine)}", markup=False)
    for note in notes:
        console.print(f"    {printable(note)}", markup=False)
    if rows:
        console.print("    Use one of the following settings in ITK-SNAP to connect to this server:", markup=False)
    for server, port, local in rows:
        console.print(f"        Server: {printable(server):40s}  Port: {port}{'  †' if local else ''}", markup=False)
    if any(local for _, _, local in rows):
        console.print("        †: only works if ITK-SNAP is running on the same computer", markup=False)
    console.print(line, markup=False)
