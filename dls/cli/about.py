"""`dls help`, `dls version` and `dls completion`."""

from __future__ import annotations

import click

from dls import __version__
from dls.cli.completion import SHELLS, make_script
from dls.errors import TargetError


def _complete_command(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the commands that a word can go on with, after those before it."""
    from dls.cli.main import cli

    found: click.Command | None = cli
    for name in context.params.get("command") or ():
        found = found.get_command(context, name) if isinstance(found, click.Group) else None
    names = found.list_commands(context) if isinstance(found, click.Group) else []
    return [name for name in names if name.startswith(incomplete)]


@click.command("help")
@click.argument("command", nargs=-1, shell_complete=_complete_command)
@click.pass_context
def help(context: click.Context, command: tuple[str, ...]) -> None:
    """Show the help of dls, or of COMMAND.

    Example: dls help connect
    """
    from dls.cli.main import cli

    found: click.Command = cli
    current = click.Context(cli, info_name="dls", help_option_names=["-h", "--help"])
    for name in command:
        below = found.get_command(current, name) if isinstance(found, click.Group) else None
        if below is None:
            raise TargetError(f"There is no command named {' '.join(command)!r}.", "`dls help` lists them.")
        found = below
        current = click.Context(found, info_name=name, parent=current)
    click.echo(found.get_help(current))


@click.command()
def version() -> None:
    """Print the version of dls.

    Example: dls version
    """
    click.echo(__version__)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what lets a shell complete commands, hosts and models.

    \b
    bash:        dls completion bash >> ~/.bashrc
    zsh:         dls completion zsh >> ~/.zshrc
    fish:        dls completion fish > ~/.config/fish/completions/dls.fish
    PowerShell:  dls completion powershell >> $PROFILE

    Example: dls completion bash >> ~/.bashrc
    """  # noqa: D301 - click looks for the character itself
    click.echo(make_script(shell))
