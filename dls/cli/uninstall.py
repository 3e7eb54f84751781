"""`dls uninstall`: remove what is ours from a host."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from dls.cli.help import GroupedCommand
from dls.cli.login_options import build_login_options, login_options
from dls.cli.target_argument import target_argument
from dls.errors import TargetError

if TYPE_CHECKING:
    from dls.remote.host.uninstall import Belonging

CACHES_STAY = "The caches of uv and pip in the home (~/.cache) are the user's own and stay."


@click.command(cls=GroupedCommand)
@target_argument
@login_options
@click.option("--session-dir", metavar="FOLDER", help="Folder that was given as --session-dir to the server.")
@click.option("--models", is_flag=True, help="Remove the models too that dls has put there.")
@click.option("-m", "--models-path", help="Folder for models on the host, if another one was named.")
@click.option("--yes", is_flag=True, help="Remove without asking for confirmation.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def uninstall(
    target: str,
    session_dir: str | None,
    models: bool,
    models_path: str | None,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Remove everything of dls from HOST, and leave it as it was.

    Shows what is there first, and asks. Servers and jobs are ended, and the stored sessions are removed too. What
    dls has not put there stays.

    Example: dls uninstall ann@gpuhost
    """
    from dls.cli.console import terminal
    from dls.remote.commands import host
    from dls.remote.commands import uninstall as remove
    from dls.remote.host.uninstall import KEPT, Removal, check_shared, list_belongings

    if not yes and not sys.stdin.isatty():
        raise TargetError("There is no terminal to confirm the removal at.", "Confirm it with --yes.")
    removal = Removal(session_dir, models, models_path)
    with (
        terminal(as_json, quiet=True) as (_, reporter, prompter),
        host(target, build_login_options(options), prompter, reporter) as (connection, report),
    ):
        where = connection.target.label
        listed = list_belongings(connection, report, removal)
        found = [each for each in listed if each.kind != KEPT]
        reporter.close()
        if kept := [each for each in listed if each.kind == KEPT]:
            size = f"{sum(each.kib for each in kept) / 1024:.1f} MiB"
            reporter.note(f"Models that dls has put there stay ({size}); --models removes them too.")
        _show(found, as_json=as_json)
        if not found:
            reporter.note(f"Nothing of dls is on {where}.")
            return
        check_shared(report)
        if not yes and not click.confirm(f"Remove all of this from {where} for good?", err=True):
            return
        for left in remove(connection, report, removal, reporter):
            reporter.note(f"{left.path} is not ours and stays.")
        reporter.note(CACHES_STAY)


def _show(found: list[Belonging], *, as_json: bool) -> None:
    from dls.cli.console import Console, show_table
    from dls.cli.events import write_event

    if as_json:
        for each in found:
            write_event("belonging", kind=each.kind, path=each.path, bytes=each.kib << 10)
    elif found:
        rows = [(each.kind, each.path, f"{each.kib / 1024:.1f} MiB") for each in found]
        total = f"{sum(each.kib for each in found) / 1024:.1f} MiB"
        show_table(Console(), ("what", "folder", "size"), [*rows, ("all", "", total)])
