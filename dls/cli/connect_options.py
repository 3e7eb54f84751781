"""The options of `dls connect`, which are also the keys of a host's profile, and their values for `dls.remote`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import click

from dls.cli.login_options import cluster_options, login_options, network_options
from dls.cli.options import Command, add_options, engine_options, page_option, session_options
from dls.contract import DEFAULT_IDLE

if TYPE_CHECKING:
    from dls.remote.host.options import ServerOptions

OPTIONS = [
    login_options,
    engine_options,
    cluster_options,
    click.option(
        "--gpu", type=click.IntRange(0), help="Number of the GPU; by default the one with the most free memory."
    ),
    click.option(
        "--local-port",
        type=click.IntRange(1, 65535),
        help="Port on this computer; by default 8911 or the next free one.",
    ),
    click.option(
        "--local-secret",
        is_flag=True,
        help="Let the port ask for a secret, which keeps other users of this computer out.",
    ),
    session_options,
    network_options,
    click.option(
        "--idle",
        metavar="MINUTES",
        default=DEFAULT_IDLE / 60,
        show_default=True,
        type=click.FloatRange(min=0),
        help="End the server after this many minutes without a request and without a client; 0 for never.",
    ),
    click.option(
        "--notify",
        is_flag=True,
        help="Tell by a desktop notice, and the terminal's bell, of long outages and their end.",
    ),
    page_option,
    click.option("--stop-server", is_flag=True, help="Stop the server on the host when this command ends."),
    click.option("--save", is_flag=True, help="Keep these options for the host; `dls hosts` lists what is kept."),
    click.option(
        "--steps/--no-steps",
        default=None,
        help="Say what to do in ITK-SNAP step by step; by default for a new host only.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output."),
]


def connect_options(command: Command) -> Command:
    """Add the options of `dls connect`."""
    return add_options(command, OPTIONS)


@cache
def list_options() -> tuple[click.Option, ...]:
    """Return the options of `dls connect`, in the order in which `--help` lists them."""
    command = click.command("connect")(connect_options(lambda: None))
    return tuple(each for each in command.params if isinstance(each, click.Option))


def build_server_options(gpu: int | None, options: dict[str, Any]) -> ServerOptions:
    """Return the server options of `dls connect` as the remote side takes them."""
    from dls.remote.host.options import ServerOptions

    return ServerOptions(
        engine=options["engine"],
        device=options["device"],
        gpu=gpu,
        stand_in=options["stand_in"],
        model=options["model"],
        models_path=options["models_path"],
        network=not options["no_network"],
        insecure=options["insecure"],
        ca_bundle=options["ca_bundle"],
        compile=options["compile"],
        native_api=options["native_api"],
        session_dir=options["session_dir"],
        session_ttl_days=options["session_ttl"],
        session_disk_gib=options["session_disk"] or 0.0,
        idle_minutes=options["idle"],
    )
