"""`dls check`: play ITK-SNAP against an address."""

from __future__ import annotations

import click

from dls.cli.help import GroupedCommand


@click.command(cls=GroupedCommand)
@click.argument("url", default="http://localhost:8911")
@click.option("--model", default="", metavar="NAME", help="Model to use; by default the first one that is listed.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def check(url: str, model: str, as_json: bool) -> None:
    """Play ITK-SNAP against a server, and time each request.

    Sends a small made image, prompts on it, and looks at the masks; the session is removed again. URL is by default
    http://localhost:8911, with a secret http://snap:SECRET@localhost:8911.

    Example: dls check http://localhost:8911
    """
    from dls.cli.console import Console, show_table, terminal
    from dls.cli.events import write_event
    from dls.segment.http import Address
    from dls.segment.player import Player

    address, rows = Address.parse(url), []
    with terminal() as (_, reporter, _prompter):
        reporter.begin("check", f"Playing ITK-SNAP against {address}")
        for timing in Player(address).play(model):
            rows.append((timing.name, f"{timing.sent}", f"{timing.received}", f"{1000 * timing.seconds:.1f}"))
            if as_json:
                fields = {"sent": timing.sent, "received": timing.received, "seconds": round(timing.seconds, 4)}
                write_event("request", name=timing.name, **fields)
        reporter.close()
    if not as_json:
        show_table(Console(), ("request", "bytes sent", "bytes received", "ms"), rows)
