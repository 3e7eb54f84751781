"""The terminal of a command: its console, what reports on it and who asks there, errors, banners and lines.

With `reporter`, `panels` and `tables`, the only modules that import rich. They are also the one door between what a
host says and the terminal: everything that is shown passes `printable`.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import click
from rich.console import Console as Console
from rich.console import ConsoleDimensions
from rich.text import Text

from dls.cli.events import JsonReporter
from dls.cli.panels import list_facts as list_facts
from dls.cli.panels import ready_fields as ready_fields
from dls.cli.panels import show_session as show_session
from dls.cli.prompter import choose_prompter
from dls.cli.reporter import ConsoleReporter as ConsoleReporter
from dls.cli.reporter import QuietReporter
from dls.cli.tables import show_findings as show_findings
from dls.cli.tables import show_sessions as show_sessions
from dls.cli.tables import show_table as show_table
from dls.cli.text import hint_text, printable
from dls.contract import ERROR_PREFIX, HINT_PREFIX
from dls.errors import DlsError
from dls.remote.ssh.prompts import Prompter


@contextlib.contextmanager
def terminal(
    as_json: bool = False, quiet: bool = False
) -> Iterator[tuple[Console, ConsoleReporter | JsonReporter, Prompter]]:
    """Yield the console, the reporter and the prompter of a command; without a terminal the prompter asks nothing.

    With `quiet` the results of phases, which are no news for a command that only looks, are not shown.

    An error on its way out loses those lines of its detail that have been shown already.
    """
    console = stderr()
    reporter = QuietReporter(console) if quiet else ConsoleReporter(console)
    prompter = choose_prompter(reporter)
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
    console = Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=True if force_color else None)
    if console.is_dumb_terminal:  # rich takes 80 columns for granted there
        columns, lines = shutil.get_terminal_size()
        console.size = ConsoleDimensions(columns, lines)
    return console


def show_error(error: DlsError) -> None:
    """Print an error: its detail if there is one, its message and its hint."""
    console = stderr()
    if error.detail:
        console.print(Text(printable(error.detail.rstrip(), lines=True), style="dim"))
    console.print(Text.assemble((ERROR_PREFIX, "bold red"), printable(error.message)))
    if error.hint:
        console.print(Text.assemble((HINT_PREFIX, "bold"), hint_text(error.hint)))


def write_line(line: str) -> None:
    """Write a line of a host's log, or a path on a host, to standard output."""
    click.echo(printable(line, lines=True))


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
