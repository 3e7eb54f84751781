"""`dls demo`: connect to an SSH server on this computer and segment a brain."""

from __future__ import annotations

from pathlib import Path

import click

from dls.cli.help import GroupedCommand
from dls.cli.signals import interrupt_on_termination
from dls.errors import HostError
from dls.extras import install_hint


@click.command(cls=GroupedCommand)
@click.option("--once", is_flag=True, help="End after the picture is written.")
@click.option(
    "--picture",
    default="dls-demo.png",
    show_default=True,
    type=click.Path(path_type=Path),
    help="File for the picture of the result.",
)
def demo(once: bool, picture: Path) -> None:
    """Try everything on this computer, without a host.

    Starts an SSH server on loopback, connects to it, segments a brain as ITK-SNAP would, and writes a picture.

    Example: dls demo
    """
    try:
        from dls.demo import play
    except ImportError as error:
        raise HostError(f"The demo's packages are not installed here ({error.name}).", install_hint("demo")) from error
    from dls.cli.console import terminal

    with terminal() as (console, reporter, _), interrupt_on_termination():
        play.run(console, reporter, once=once, path=picture)
