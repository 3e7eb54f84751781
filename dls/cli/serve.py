"""`dls serve`: run the segmentation server on this computer."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dls.cli.help import GroupedCommand
from dls.cli.options import (
    INSECURE_NOTE,
    build_model_spec,
    engine_options,
    expand_path,
    page_option,
    read_first_line,
    session_options,
)
from dls.cli.signals import end_with_standard_input, interrupt_on_termination
from dls.contract import DEFAULT_PORT, NOT_INSTALLED
from dls.errors import HostError
from dls.extras import install_hint

if TYPE_CHECKING:
    from dls.server.options import ServeOptions
    from dls.server.serve import RunningServer


@click.command(cls=GroupedCommand)
@click.option(
    "-H", "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all addresses."
)
@click.option(
    "-p",
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for any free port.",
)
@click.option("--uds", type=click.Path(path_type=Path), help="Unix socket to listen on instead of a port.")
@engine_options
@click.option("--setup-only", is_flag=True, help="Download and load what the engine needs, then end.")
@click.option("--secret", help="Secret that clients must send: @FILE, - for standard input, or the secret itself.")
@click.option("--open", "is_open", is_flag=True, help="Ask for no secret: everybody who can reach the port gets in.")
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Additional host name under which clients may address this server.",
)
@click.option(
    "--max-memory",
    type=click.FloatRange(min=0.01),
    metavar="GIB",
    help="Maximum memory for images; by default 60 % of the computer's memory.",
)
@session_options
@page_option
@click.option("--use-colors", is_flag=True, help="Color the output even without a terminal.")
@click.option("--launch-file", type=click.Path(path_type=Path), hidden=True)
@click.option("--temporary", type=click.Path(path_type=Path), hidden=True)
def serve(launch_file: Path | None, setup_only: bool, use_colors: bool, temporary: Path | None, **options: Any) -> None:
    """Run the segmentation server on this computer.

    Example: dls serve --engine region
    """
    from dls.server import spawn
    from dls.server.options import from_launch_file

    _configure_logging()
    reason = choose_engine(options) if launch_file is None else ""
    chosen = build_serve_options(options) if launch_file is None else from_launch_file(launch_file)
    spawn.require_packages(chosen.engine)
    try:
        # The engine's process starts before the imports below, because it has more to import than this process. On
        # Windows spawning waits until that process has connected, so it would delay the imports.
        spawned = None if setup_only or sys.platform == "win32" else spawn.spawn_engine(chosen.engine)
        from dls.server import serve as server
        from dls.server.engines.catalog import make_engine
    except ImportError as error:
        raise HostError(f"The server's {NOT_INSTALLED} ({error.name}).", install_hint("server")) from error
    if setup_only:
        engine = make_engine(chosen.engine, chosen.engine_options)
        engine.load(lambda step: click.echo(f"{step.text} ...", err=True))
        click.echo(f"The {engine.name} engine has everything it needs.", err=True)
        return

    def announce(listening: RunningServer) -> None:
        if launch_file is None:
            _show_banner(listening, use_colors, options["insecure"], reason)

    # uvicorn shuts down on SIGTERM and then raises the signal again. Its default action would end this process before
    # the socket and the state file are removed, so both signals become KeyboardInterrupt.
    with interrupt_on_termination(), contextlib.suppress(KeyboardInterrupt):
        if temporary is None:
            server.serve(chosen, announce, spawned)
        else:
            _serve_for_a_while(temporary, lambda: server.serve(chosen, announce, spawned))


def _serve_for_a_while(folder: Path, serve_all: Callable[[], None]) -> None:
    """Serve until standard input is closed, and remove the folder: so ends the server of one `dls segment`.

    Also where that program is killed, nothing of its images stays.
    """
    try:
        end_with_standard_input()
        serve_all()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def choose_engine(options: dict[str, Any]) -> str:
    """Put the engine that `auto` means here into the options, and return why it is that one; empty where it was named.

    Raises TargetError where the licence of that engine's weights was not agreed to.
    """
    from dls import engine_choice, gpus

    asked_for, model, reason = options["engine"], options["model"], ""
    if asked_for == engine_choice.AUTO:
        wishes = engine_choice.Wishes(options["device"], None, options["stand_in"], model)
        choice = engine_choice.choose_here(gpus.local(), wishes)
        options["engine"], reason = choice.engine, choice.reason
    if options["engine"] == engine_choice.NNINTERACTIVE and not (model and Path(model).is_dir()):
        from dls.cli.prompter import choose_prompter
        from dls.remote.licence import Licence

        note = partial(click.echo, err=True)
        Licence(choose_prompter(), note, asked_for, model, accept=options["accept_licence"]).require(options["engine"])
    return reason


def build_serve_options(options: dict[str, Any]) -> ServeOptions:
    """Return the options of `dls serve` as the server takes them: memory in bytes, times in seconds."""
    from dls.server.options import EngineOptions, ServeOptions

    uds, memory = options["uds"], options["max_memory"]
    return ServeOptions(
        host=None if uds is not None else options["host"],
        port=options["port"],
        uds=uds,
        engine=options["engine"],
        engine_options=EngineOptions(
            options["device"],
            build_model_spec(options),
            compile=options["compile"],
            native_api=options["native_api"],
        ),
        stand_in=options["stand_in"],
        secret=_read_secret(options["secret"]),
        open=options["is_open"],
        allow_hosts=options["allow_hosts"],
        memory=int(memory * (1 << 30)) if memory else None,
        session_dir=expand_path(options["session_dir"]),
        session_ttl=86400 * options["session_ttl"],
        session_disk=int((options["session_disk"] or 0) * (1 << 30)),
        page=not options["no_page"],
    )


def _configure_logging() -> None:
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    # uvicorn's own lines repeat ours, and its access log would contain session IDs.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _read_secret(value: str | None) -> str | None:
    if value is None:
        return _check_secret(named, "DLS_SECRET") if (named := os.environ.get("DLS_SECRET")) else None
    if value == "-":
        secret = read_first_line("-", "--secret")
    elif value.startswith("@"):
        secret = read_first_line(value[1:], "--secret")
    else:
        click.echo(
            "Note: other users of this machine can see a secret on the command line; --secret @FILE hides it.",
            err=True,
        )
        secret = value
    return _check_secret(secret, "--secret")


def _check_secret(secret: str | None, name: str) -> str:
    """Return the secret; raises BadParameter, which names where it came from, for one that no Server field can hold."""
    if not secret or not secret.isascii() or any(c in secret for c in " @:/?#%[]\\\"'"):
        raise click.BadParameter("a secret is made of letters, digits and - . _ ~", param_hint=f"'{name}'")
    return secret


def _show_banner(listening: RunningServer, use_colors: bool, insecure: bool, reason: str) -> None:
    from dls.cli import console
    from dls.engine_choice import EngineChoice
    from dls.server.sockets import addresses

    engine = f"{listening.engine.name} on {listening.engine.device}, models: {', '.join(listening.models)}"
    found = addresses(listening.options.host, listening.port, listening.secret)
    rows = [(row.server, row.port, row.local_only) for row in found]
    notes = [*_list_notes(listening), *([INSECURE_NOTE] if insecure else [])]
    if reason:
        other = EngineChoice(listening.options.engine).other
        notes.insert(0, f"{reason}; for the other engine: --engine {other}")
    console.show_banner(console.stderr(use_colors), _describe_gpu(listening.engine.device), engine, rows, notes)


def _describe_gpu(device: str) -> str:
    from dls import gpus

    found = gpus.local()
    if device == "cpu":
        unused = f"GPU {found[0].name} is not used" if found else "No GPU found"
        return f"{unused}: this engine computes on the CPU"
    return f"Using GPU {found[0].index}: {found[0].name}" if found else "No GPU found"


def _list_notes(listening: RunningServer) -> list[str]:
    options, notes = listening.options, []
    if options.stand_in:
        notes.append(f"{listening.engine.name} stands in for nnInteractive: it is listed under that name too.")
    if options.uds is not None:
        notes.append(f"Listening on the Unix socket {options.uds}")
    if listening.port is not None and not options.is_public and listening.secret is None:
        notes.append("Other users of this computer can use this port; --secret @FILE lets it ask for a secret.")
    if listening.port is not None and listening.serves_viewers:
        key = ", and the secret as the API key" if listening.secret else ""
        notes.append(f"In napari, 3D Slicer and MITK use http://HOST:{listening.port} of this computer{key}.")
    if listening.page is not None:
        notes.append(f"A page shows what it does: {listening.page.url}")
    if options.is_public and options.open:
        notes.append("Everybody who can reach this port can use the server (--open).")
    return notes
