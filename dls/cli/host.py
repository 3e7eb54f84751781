"""`dls stop`, `dls logs` and `dls sessions`: what is on a host already."""

from __future__ import annotations

import sys
from typing import Any

import click

from dls.cli.options import login_options, login_options_of, people
from dls.errors import TargetError


@click.command()
@click.argument("target", metavar="[USER@]HOST[:PORT]")
@login_options
def stop(target: str, **options: Any) -> None:
    """End the server on HOST."""
    from dls.remote.commands import stop_server

    with people() as (_, reporter, prompter):
        if not stop_server(target, login_options_of(options), prompter, reporter):
            reporter.note("No server was running there.")


@click.command()
@click.argument("target", metavar="[USER@]HOST[:PORT]")
@login_options
@click.option(
    "-n",
    "--lines",
    default=50,
    show_default=True,
    type=click.IntRange(0),
    help="How many lines from the end.",
)
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until Ctrl-C.")
def logs(target: str, lines: int, follow: bool, **options: Any) -> None:
    """Print the log of the server on HOST."""
    from dls.remote.commands import read_log

    with people() as (_, reporter, prompter):
        read_log(target, login_options_of(options), prompter, reporter, lines=lines, follow=follow, write=click.echo)


@click.command()
@click.argument("target", metavar="[USER@]HOST[:PORT]")
@click.argument("names", metavar="[SESSION]...", nargs=-1)
@login_options
@click.option("--session-dir", metavar="FOLDER", help="The folder that was named when the server was started.")
@click.option("--purge", is_flag=True, help="Remove the sessions named, or all.")
@click.option("--yes", is_flag=True, help="Do not ask before anything is removed.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def sessions(
    target: str, names: tuple[str, ...], session_dir: str | None, purge: bool, yes: bool, as_json: bool, **options: Any
) -> None:
    """List the sessions that are kept on HOST, or remove them."""
    from dls.cli.console import show_sessions
    from dls.remote.commands import host
    from dls.remote.host.stored_sessions import list_sessions, remove_sessions
    from dls.remote.progress import Phases

    if purge and not yes and not sys.stdin.isatty():
        raise TargetError("Nobody can be asked whether to remove the sessions.", "Say so with --yes.")
    with (
        people() as (_, reporter, prompter),
        host(target, login_options_of(options), prompter, reporter) as (connection, report),
    ):
        found = list_sessions(connection, report, session_dir)
        chosen = [session for session in found if not names or any(session.id.startswith(name) for name in names)]
        reporter.close()
        show_sessions(chosen, as_json=as_json)
        if not (purge and chosen):
            return
        if yes or click.confirm(f"Remove {len(chosen)} sessions for good?", err=True):
            with Phases(reporter)("purge", "Removing sessions") as phase:
                remove_sessions(connection, report, session_dir, [session.id for session in chosen])
                phase.result = f"Removed {len(chosen)} of {len(found)} sessions"
