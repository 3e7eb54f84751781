"""`dls stop`, `dls logs`, `dls sessions` and `dls forget`: commands for a host that has been connected to before."""

from __future__ import annotations

import sys
from typing import Any

import click

from dls.cli.help import GroupedCommand
from dls.cli.login_options import build_login_options, login_options
from dls.cli.target_argument import target_argument
from dls.errors import TargetError


@click.command(cls=GroupedCommand)
@target_argument
@login_options
def stop(target: str, **options: Any) -> None:
    """Stop the server on HOST.

    Example: dls stop ann@gpuhost
    """
    from dls.cli.console import terminal
    from dls.remote.commands import stop_server

    with terminal(quiet=True) as (_, reporter, prompter):
        if not stop_server(target, build_login_options(options), prompter, reporter):
            reporter.note("No server was running there.")


@click.command(cls=GroupedCommand)
@target_argument
@login_options
def forget(target: str, **options: Any) -> None:
    """Remove the password of HOST from this computer's keychain.

    Example: dls forget ann@gpuhost
    """
    from dls.cli.console import terminal
    from dls.remote.commands import forget_passwords

    with terminal() as (_, reporter, _prompter):
        accounts = forget_passwords(target, build_login_options(options))
        for account in accounts:
            reporter.note(f"The password of {account} is no longer in the keychain.")
        if not accounts:
            reporter.note("No password was kept for it.")


@click.command(cls=GroupedCommand)
@target_argument
@login_options
@click.option(
    "-n",
    "--lines",
    default=50,
    show_default=True,
    type=click.IntRange(0),
    help="Number of lines to print from the end of the log.",
)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines until Ctrl-C.")
def logs(target: str, lines: int, follow: bool, **options: Any) -> None:
    """Print the log of the server on HOST.

    Example: dls logs -f ann@gpuhost
    """
    from dls.cli.console import terminal, write_line
    from dls.remote.commands import read_log

    with terminal(quiet=True) as (_, reporter, prompter):
        read_log(target, build_login_options(options), prompter, reporter, lines=lines, follow=follow, write=write_line)


@click.command(cls=GroupedCommand)
@target_argument
@click.argument("names", metavar="[SESSION]...", nargs=-1)
@login_options
@click.option("--session-dir", metavar="FOLDER", help="Folder that was given as --session-dir to the server.")
@click.option("--purge", is_flag=True, help="Remove the named sessions, or all of them.")
@click.option("--yes", is_flag=True, help="Remove without asking for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def sessions(
    target: str, names: tuple[str, ...], session_dir: str | None, purge: bool, yes: bool, as_json: bool, **options: Any
) -> None:
    """List the sessions stored on HOST, or remove them.

    SESSION is the beginning of a session's ID; without one, all sessions are listed or removed.

    Example: dls sessions ann@gpuhost
    """
    from dls.cli.console import show_sessions, terminal
    from dls.remote.commands import host
    from dls.remote.host.stored_sessions import list_sessions, remove_sessions
    from dls.remote.progress import Phases

    if purge and not yes and not sys.stdin.isatty():
        raise TargetError("There is no terminal to confirm the removal of sessions at.", "Confirm it with --yes.")
    with (
        terminal(quiet=True) as (_, reporter, prompter),
        host(target, build_login_options(options), prompter, reporter, enters_job=True) as (connection, report),
    ):
        found, total = list_sessions(connection, report, session_dir)
        chosen = [session for session in found if not names or any(session.id.startswith(name) for name in names)]
        reporter.close()
        for name in names:
            if not any(session.id.startswith(name) for session in found):
                reporter.note(f"No session there begins with {name}.")
        if chosen or not names:
            show_sessions(chosen, total, as_json=as_json)
        if not (purge and chosen):
            return
        if yes or click.confirm(f"Remove {len(chosen)} sessions for good?", err=True):
            with Phases(reporter)("purge", "Removing sessions") as phase:
                remove_sessions(connection, report, session_dir, [session.id for session in chosen])
                phase.result = f"Removed {len(chosen)} of {len(found)} sessions"
