"""`dls connect`: start or find a server on a host, and keep a local port open to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from dls.cli.connect_options import build_server_options, connect_options
from dls.cli.help import GroupedCommand
from dls.cli.login_options import (
    build_cluster_options,
    build_login_options,
    build_network_options,
    start_reading_configuration,
)
from dls.cli.options import INSECURE_NOTE
from dls.cli.signals import interrupt_on_termination
from dls.cli.target_argument import offered_target_argument
from dls.errors import DlsError

if TYPE_CHECKING:
    from dls.remote.progress import Reporter
    from dls.remote.session import Session


@click.command(cls=GroupedCommand)
@offered_target_argument
@connect_options
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
        with _closing(session, reporter, stop_server=stop_server, as_json=as_json):
            is_new = remember(target, reporter, click.get_current_context() if save else None)
            if as_json:
                events.write_event("ready", **ready_fields(session))
            else:
                show_session(console, session, has_steps=is_new if steps is None else steps)
            with live.shown(session, console, reporter, notify=notify):
                session.wait()


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


@contextlib.contextmanager
def _closing(session: Session, reporter: Reporter, *, stop_server: bool, as_json: bool) -> Iterator[None]:
    """Close the session at the end, and tell why: Ctrl-C ends the block well, a session that is lost does not."""
    from dls.cli import events

    try:
        yield
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


def _describe_end(session: Session, stop_server: bool) -> str:
    """Return what is closed, and what goes on without this command."""
    closing = f"Closing the connection to {session.connection.target.label}"
    if stop_server:
        return f"{closing}."
    if session.job is not None and not session.is_up:
        return f"{closing}; nothing answers there now: a job that still runs ends when nobody has used it for a while."
    if session.job is None:
        return f"{closing}; the server keeps running."
    from dls.remote.durations import format_duration

    left = session.job.seconds_left
    time = "" if left is None else f" for another {format_duration(left)}"
    stop = session.login.command("stop", session.target)
    job = f"the job {session.job.job.id} runs{time}, or until nobody has used it for a while"
    return f"{closing}; {job}. To end it now: {stop}"
