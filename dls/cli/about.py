"""`dls help`, `dls version` and `dls completion`."""

from __future__ import annotations

import click

from dls import __version__
from dls.cli.completion import SHELLS, make_script
from dls.cli.help import GroupedCommand
from dls.errors import TargetError


def _complete_command(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the commands that a word can go on with, after those before it."""
    found: click.Command | None = context.find_root().command
    for name in context.params.get("command") or ():
        found = found.get_command(context, name) if isinstance(found, click.Group) else None
    names = found.list_commands(context) if isinstance(found, click.Group) else []
    return [name for name in names if name.startswith(incomplete)]


@click.command("help", cls=GroupedCommand)
@click.argument("command", nargs=-1, shell_complete=_complete_command)
@click.pass_context
def help(context: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of dls, or of COMMAND.

    Example: dls help connect
    """
    found = context.find_root().command
    current = click.Context(found, info_name="dls", help_option_names=["-h", "--help"])
    for name in command:
        below = found.get_command(current, name) if isinstance(found, click.Group) else None
        if below is None:
            raise TargetError(f"There is no command named {' '.join(command)!r}.", "`dls help` lists them.")
        found = below
        current = click.Context(found, info_name=name, parent=current)
    click.echo(found.get_help(current))


@click.command(cls=GroupedCommand)
def version() -> None:
    """Print the version of dls.

    Example: dls version
    """
    click.echo(__version__)


@click.command(cls=GroupedCommand)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what lets a shell complete commands, hosts and models.

    Append it to the file that the shell reads at its start; new windows then complete.

    Example: dls completion bash >> ~/.bashrc

    Example: dls completion zsh >> ~/.zshrc

    Example: dls completion fish > ~/.config/fish/completions/dls.fish

    Example: dls completion powershell >> $PROFILE
    """
    click.echo(make_script(context.find_root().command, shell))
