"""The argument that names a host, whose profile then stands behind the command line of every command that has it."""

from __future__ import annotations

import functools
from typing import Any, cast

import click

from dls.cli.options import Command


def _target(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    if not value and not context.params.get("via"):
        raise click.MissingParameter(ctx=context, param=parameter)
    return value or ""


def complete_host(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the hosts that a word can go on with; the module that knows them is imported when a shell asks."""
    from dls.cli import completion

    return completion.complete_host(context, parameter, incomplete)


def target_argument(command: Command) -> Command:
    """Add the argument that names the host, whose profile is obeyed; with --via it may be left out."""
    argument = click.argument(
        "target", metavar="[USER@]HOST[:PORT]", required=False, callback=_target, shell_complete=complete_host
    )
    return argument(_with_profile(command))


def offered_target_argument(command: Command) -> Command:
    """Add the argument that names the host, whose profile is obeyed; without it, the known hosts are offered."""
    argument = click.argument("target", metavar="[[USER@]HOST[:PORT]]", default="", shell_complete=complete_host)
    return argument(_with_profile(command, offers=True))


def optional_target_argument(command: Command) -> Command:
    """Add the argument that names the host, whose profile is obeyed; without it, the target is an empty text."""
    return click.argument("target", metavar="[[USER@]HOST[:PORT]]", default="", shell_complete=complete_host)(
        _with_profile(command)
    )


def _with_profile(command: Command, *, offers: bool = False) -> Command:
    """Return the command, called with the options of the host's profile where the command line says nothing else."""

    @functools.wraps(command)
    def call(target: str, **options: Any) -> Any:
        from dls.cli import known_hosts, profiles

        context = click.get_current_context()
        if offers and not target and not options["via"]:
            argument = next(each for each in context.command.params if each.name == "target")
            target = known_hosts.ask_for_host(context, argument, options["ssh_config"])
        return command(target=target, **profiles.apply(context, target, options))

    return cast("Command", call)
