"""Tables of results, on standard output: stored sessions, and what `dls doctor` found."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dls.cli.events import write_event
from dls.cli.text import printable
from dls.remote.durations import format_ago

if TYPE_CHECKING:
    from dls.remote.doctor.findings import Findings
    from dls.remote.host.stored_sessions import StoredSession


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
            format_ago(session.idle),
        )
        for session in sessions
    ]
    show_table(Console(), ("session", "model", "image", "on disk", "last used"), rows)
    if 1.01 * total < sum(session.kib for session in sessions):
        text = f"All together take {total / 1024:.1f} MiB: an image that several sessions have is on the disk once.\n"
        sys.stdout.write(text)


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
