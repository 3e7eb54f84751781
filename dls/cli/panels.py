"""What a connection that is ready shows: the panel with the address to type into ITK-SNAP, and its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dls.cli import steps
from dls.cli.text import printable

if TYPE_CHECKING:
    from dls.remote.session import Session


def ready_fields(session: Session) -> dict[str, Any]:
    """Return the fields of the `ready` event."""
    return {
        "server": session.server_field,
        "port": session.port,
        "url": session.url,
        "page": session.page_url,
        "host": str(session.connection.target),
        "engine": session.state.engine,
        "device": session.state.device,
        "models": list(session.models),
        "why": session.choice.reason,
        "log": session.state.log,
        "pid": session.state.pid,
        "job": session.job and session.job.job.id,
        "seconds": {name: round(seconds, 3) for name, seconds in session.seconds.items()},
    }


def show_session(console: Console, session: Session, *, has_steps: bool = True) -> None:
    """Print a panel with the engine, what to type into ITK-SNAP and to do there, and the same for other viewers.

    `has_steps` says whether what to do is told step by step.
    """
    target = session.connection.target
    address = Text.assemble(
        ("Server: ", "dim"),
        (session.server_field, "bold green"),
        ("     Port: ", "dim"),
        (str(session.port), "bold green"),
    )
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")  # of an address or a path that is cut off, nothing can be used
    for name, text in list_facts(session):
        facts.add_row(name, Text(printable(text)))
    command = session.login.command("connect", session.target)
    engine = steps.engine_lines(session.choice, session.state.engine, session.state.device, command)
    todo = steps.whole(session.models) if has_steps else steps.brief(session.models)
    viewers = [_viewers_line(session)] if session.serves_viewers else []
    page = [_page_line(session.page_url)] if session.page_url is not None else []
    console.print()
    console.print(
        Panel(
            Group(_folded(engine), Text(), address, Text(), _folded(todo), Text(), *viewers, *page, facts),
            title=Text(printable(f"Ready on {target}")),
            border_style="green",
            padding=(1, 2),
            expand=False,
        )
    )


def _folded(rows: list[steps.Row]) -> Table:
    """Return rows, each a mark and a line, as a table, which folds long lines beside the mark."""
    has_marks = any(mark for mark, _ in rows)
    table = Table.grid(padding=(0, 2))
    if has_marks:
        table.add_column(style="dim")
    table.add_column(overflow="fold")
    for mark, line in rows:
        text = Text.assemble(*((printable(part), style) for part, style in line))
        table.add_row(*([mark] if has_marks else []), text)
    return table


def _viewers_line(session: Session) -> Group:
    """Return what to type into viewers that speak nnInteractive's own protocol."""
    line = [("URL: ", steps.QUIET), (f"http://localhost:{session.port}", steps.KEY)]
    if session.local_secret is not None:
        line += [("     API key: ", steps.QUIET), (session.local_secret, steps.KEY)]
    return _below("In napari, 3D Slicer or MITK, use a remote nnInteractive server with", line)


def _below(heading: str, line: steps.Line) -> Group:
    """Return a line to copy below the sentence that says what it is for; in a table, since text alone is cut here."""
    return Group(_folded([("", [(heading, steps.PLAIN)])]), Text(), _folded([("", line)]), Text())


def _page_line(url: str) -> Group:
    """Return the address of the page on a line of its own, where it is whole on a terminal of 60 columns too."""
    return _below("The sessions, the last requests and the log, in a browser:", [(url, steps.KEY)])


def list_facts(session: Session) -> list[tuple[str, str]]:
    """Return the rows of the panel: each a name and a text."""
    state, login, label = session.state, session.login, session.connection.target.label
    facts = []
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


def show_facts(title: str, rows: list[tuple[str, str]]) -> None:
    """Print a panel of facts to standard output."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    for name, text in rows:
        facts.add_row(name, Text(printable(text)))
    Console().print(Panel(facts, title=Text(printable(title)), border_style="dim", padding=(0, 1), expand=False))
