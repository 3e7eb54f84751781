"""`dls connect`: start or find a server on a host, and keep a local port open to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dls.cli.help import GroupedCommand
from dls.cli.login_options import (
    build_cluster_options,
    build_login_options,
    build_network_options,
    cluster_options,
    login_options,
    network_options,
    offered_target_argument,
    start_reading_configuration,
)
from dls.cli.options import INSECURE_NOTE, engine_options, page_option, session_options
from dls.cli.signals import interrupt_on_termination
from dls.contract import DEFAULT_IDLE
from dls.errors import DlsError

if TYPE_CHECKING:
    from dls.remote.host.options import ServerOptions
    from dls.remote.progress import Reporter
    from dls.remote.session import Session


@click.command(cls=GroupedCommand)
@offered_target_argument
@login_options
@engine_options
@cluster_options
@click.option("--gpu", type=click.IntRange(0), help="Number of the GPU; by default the one with the most free memory.")
@click.option(
    "--local-port",
    type=click.IntRange(1, 65535),
    help="Port on this computer; by default 8911 or the next free one.",
)
@click.option(
    "--local-secret",
    is_flag=True,
    help="Let the port ask for a secret, which keeps other users of this computer out.",
)
@session_options
@network_options
@click.option(
    "--idle",
    metavar="MINUTES",
    default=DEFAULT_IDLE / 60,
    show_default=True,
    type=click.FloatRange(min=0),
    help="End the server after this many minutes without a request and without a client; 0 for never.",
)
@click.option(
    "--notify", is_flag=True, help="Tell by a desktop notice, and the terminal's bell, of long outages and their end."
)
@page_option
@click.option("--stop-server", is_flag=True, help="Stop the server on the host when this command ends.")
@click.option("--save", is_flag=True, help="Keep these options for the host; `dls hosts` lists what is kept.")
@click.option(
    "--steps/--no-steps", default=None, help="Say what to do in ITK-SNAP step by step; by default for a new host only."
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def connect(
    target: str,
    gpu: int | None,
    local_port: int | None,
    local_secret: bool,
    notify: bool,
    stop_server: bool,
    save: bool,
    steps: bool | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Start a segmentation server on HOST and open a local port to it.

    Without HOST, the known hosts are offered, the one that was used last first.

    Example: dls connect ann@gpuhost
    """
    login = build_login_options(options)
    start_reading_configuration(target, login)
    from dls.cli import events, live
    from dls.cli.console import ready_fields, show_session, terminal
    from dls.remote.session import connect as open_session

    with terminal(as_json) as (console, reporter, prompter), interrupt_on_termination():
        if options["insecure"]:
            reporter.note(INSECURE_NOTE)
        session = open_session(
            target,
            server=build_server_options(gpu, options),
            login=login,
            cluster=build_cluster_options(options),
            network=build_network_options(options),
            local_port=local_port,
            local_secret=local_secret,
            accept_licence=options["accept_licence"],
            page=not options["no_page"],
            prompter=prompter,
            reporter=reporter,
        )
        try:
            is_new = remember(target, reporter, click.get_current_context() if save else None)
            if as_json:
                events.write_event("ready", **ready_fields(session))
            else:
                show_session(console, session, has_steps=is_new if steps is None else steps)
            with live.shown(session, console, reporter, notify=notify):
                session.wait()
        except KeyboardInterrupt:
            reporter.note(_describe_end(session, stop_server))
            if as_json:
                events.write_event("closed", reason="interrupted")
        except DlsError as error:
            if as_json:
                events.write_event("lost", message=error.message)
            raise
        finally:
            session.close(stop_server=stop_server)


def remember(target: str, reporter: Reporter, saving: click.Context | None) -> bool:
    """Remember that the host was used, and return whether it is new; with `saving`, keep what that command line says.

    A profile that can't be written is a note: the connection stands.
    """
    from dls.cli import profiles
    from dls.remote.user import memory

    is_new = target not in {host.target for host in memory.used_before()}
    if not target:
        if saving is not None:
            reporter.note("Nothing was kept: --save needs a name for the host, before or after --via.")
        return is_new
    memory.remember(target)
    if saving is not None:
        try:
            path, keys = profiles.save(target, saving.meta[profiles.GIVEN])
        except DlsError as error:
            reporter.note(f"{error.message} {error.hint}")
        else:
            reporter.note(f"Kept for {target} in {path}: {', '.join(keys) or 'nothing but its name'}.")
    return is_new


def _describe_end(session: Session, stop_server: bool) -> str:
    """Return what is closed, and what goes on without this command."""
    closing = f"Closing the connection to {session.connection.target.label}"
    if stop_server:
        return f"{closing}."
    if session.job is not None and not session.is_up:
        return f"{closing}; nothing answers there now: a job that still runs ends when nobody has used it for a while."
    if session.job is None:
        return f"{closing}; the server keeps running."
    from dls.remote.cluster.durations import format_seconds

    left = session.job.seconds_left
    time = "" if left is None else f" for another {format_seconds(left)}"
    stop = session.login.command("stop", session.target)
    job = f"the job {session.job.job.id} runs{time}, or until nobody has used it for a while"
    return f"{closing}; {job}. To end it now: {stop}"


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
