"""The commands; the one place where an error becomes a message and an exit code.

Each command imports what it needs when it runs: `dls --help` must feel instant.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dls import __version__
from dls.cli.host import logs, sessions, stop
from dls.cli.models import models
from dls.cli.options import (
    UNCHECKED,
    engine_options,
    first_line,
    login_options,
    login_options_of,
    path_of,
    people,
    session_options,
    wish_of,
)
from dls.contract import DEFAULT_IDLE, DEFAULT_PORT, ERROR_PREFIX, HINT_PREFIX, NOT_INSTALLED
from dls.errors import DlsError, HostError

if TYPE_CHECKING:
    from dls.remote.host.launch import ServerOptions
    from dls.server.options import ServeOptions
    from dls.server.serve import Listening

INTERRUPTED = 130
BUG = 1


def main() -> None:
    """Run the command line and end the process with the documented exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every failure ends here in a sentence and a hint."""
    try:
        return int(cli.main(arguments, prog_name="dls", standalone_mode=False) or 0)
    except DlsError as error:
        _tell(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # `dls logs host | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("DLS_DEBUG"):
            raise
        message = f"dls made a mistake: {type(error).__name__}: {error}"
        _tell(DlsError(message, "Please report it, with what DLS_DEBUG=1 in the environment prints."))
        return BUG


def _tell(error: DlsError) -> None:
    try:
        from dls.cli.console import show_error
    except ImportError:  # on a host that has only what the server needs
        for line in (error.detail, ERROR_PREFIX + error.message, error.hint and HINT_PREFIX + error.hint):
            if line:
                click.echo(line, err=True)
    else:
        show_error(error)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dls")
def cli() -> None:
    """Segment in ITK-SNAP with a GPU somewhere else."""


@cli.command()
@click.argument("target", metavar="[USER@]HOST[:PORT]")
@login_options
@engine_options
@click.option("--gpu", type=click.IntRange(0), help="Number of the GPU; by default the one with the most free memory.")
@click.option(
    "--local-port",
    type=click.IntRange(1, 65535),
    help="Port on this computer; by default 8911 or the next free one.",
)
@session_options
@click.option(
    "--idle",
    metavar="MINUTES",
    default=DEFAULT_IDLE / 60,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Minutes without a request and without a client after which the server ends; 0 for never.",
)
@click.option("--stop-server", is_flag=True, help="End the server on the host too, when this command ends.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def connect(
    target: str, gpu: int | None, local_port: int | None, stop_server: bool, as_json: bool, **options: Any
) -> None:
    """Put a segmentation server on HOST and its address on localhost."""
    from dls.cli.console import ready_fields, show_session, write_event
    from dls.remote import session as sessions

    with people(as_json) as (screen, reporter, prompter), _sigterm_interrupts():
        if options["insecure"]:
            reporter.note(UNCHECKED)
        session = sessions.connect(
            target,
            server=_server_options(gpu, options),
            login=login_options_of(options),
            local_port=local_port,
            prompter=prompter,
            reporter=reporter,
        )
        try:
            if as_json:
                write_event("ready", **ready_fields(session))
            else:
                show_session(screen, session)
            session.wait()
        except KeyboardInterrupt:
            stays = "" if stop_server else "; the server stays for the next time"
            reporter.note(f"Closing the connection to {session.connection.target.label}{stays}.")
            if as_json:
                write_event("closed", reason="interrupted")
        except DlsError as error:
            if as_json:
                write_event("lost", message=error.message)
            raise
        finally:
            session.close(stop_server=stop_server)


def _server_options(gpu: int | None, options: dict[str, Any]) -> ServerOptions:
    from dls.remote.host.launch import ServerOptions

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
        native_api=options["nninteractive_api"],
        session_dir=options["session_dir"],
        session_ttl=86400 * options["session_ttl"],
        idle=60 * options["idle"],
    )


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """End as cleanly on SIGTERM, and when the terminal closes, as on Ctrl-C."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # One that is ignored stays so: that is what nohup does.
    names = [
        name
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK")
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN
    ]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@cli.command()
@click.option("-H", "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "-p",
    "--port",
    default=DEFAULT_PORT,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for any.",
)
@click.option("--uds", type=click.Path(path_type=Path), help="Listen on a Unix socket instead of a port.")
@engine_options
@click.option("--setup-only", is_flag=True, help="Fetch what the engine needs, then end.")
@click.option("--secret", help="Secret that clients must show: @FILE, - for standard input, or the secret itself.")
@click.option("--open", "is_open", is_flag=True, help="Let everybody in who can reach the port.")
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Another name by which clients may address this server.",
)
@click.option(
    "--max-memory",
    type=click.FloatRange(min=0.01),
    metavar="GIB",
    help="Memory for images; by default 60 % of the machine's.",
)
@session_options
@click.option("--use-colors", is_flag=True, help="Color the output even where there is no terminal.")
@click.option("--launch-file", type=click.Path(path_type=Path), hidden=True)
def serve(launch_file: Path | None, setup_only: bool, use_colors: bool, **options: Any) -> None:
    """Run the segmentation server on this machine."""
    from dls.server import spawn
    from dls.server.options import from_launch_file

    _log_to_stderr()
    chosen = _serve_options(options) if launch_file is None else from_launch_file(launch_file)
    try:
        # Before the imports: it has more of them. On Windows that would have to wait until it has connected.
        begun = None if setup_only or sys.platform == "win32" else spawn.begin(chosen.engine)
        from dls.server import engines
        from dls.server import serve as server
    except ImportError as error:
        raise HostError(
            f"The server's {NOT_INSTALLED} ({error.name}).",
            'Install them: pip install "dls[server]"',
        ) from error
    if setup_only:
        engine = engines.make(chosen.engine, chosen.engine_options)
        engine.load(lambda step: click.echo(f"{step.text} ...", err=True))
        click.echo(f"The {engine.name} engine has everything it needs.", err=True)
        return

    def announce(listening: Listening) -> None:
        if launch_file is None:
            _announce(listening, use_colors, options)

    with _ended_by_signal():
        server.serve(chosen, announce, begun)


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Take Ctrl-C and SIGTERM as the way to end a server.

    uvicorn shuts down and raises the signal again; by default SIGTERM would then kill us before the files are gone.
    """
    with _sigterm_interrupts(), contextlib.suppress(KeyboardInterrupt):
        yield


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    # Their lines repeat ours, and an access log would hold session ids.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _serve_options(options: dict[str, Any]) -> ServeOptions:
    from dls.server.options import EngineOptions, ServeOptions

    uds, memory = options["uds"], options["max_memory"]
    return ServeOptions(
        host=None if uds is not None else options["host"],
        port=options["port"],
        uds=uds,
        engine=options["engine"],
        engine_options=EngineOptions(
            options["device"],
            wish_of(options),
            compile=options["compile"],
            native_api=options["nninteractive_api"],
        ),
        stand_in=options["stand_in"],
        secret=_secret(options["secret"]),
        open=options["is_open"],
        allow_hosts=options["allow_hosts"],
        memory=int(memory * (1 << 30)) if memory else None,
        session_dir=path_of(options["session_dir"]),
        session_ttl=86400 * options["session_ttl"],
    )


def _secret(value: str | None) -> str | None:
    if value is None:
        return os.environ.get("DLS_SECRET") or None
    if value == "-":
        secret = first_line("-")
    elif value.startswith("@"):
        secret = first_line(value[1:])
    else:
        click.echo(
            "Note: other users of this machine can see a secret on the command line; --secret @FILE hides it.",
            err=True,
        )
        secret = value
    if not secret or not secret.isascii() or any(c in secret for c in " @:/?#%[]\\\"'"):
        raise click.BadParameter("a secret is made of letters, digits and - . _ ~", param_hint="'--secret'")
    return secret


def _announce(listening: Listening, use_colors: bool, options: dict[str, Any]) -> None:
    from dls import gpus
    from dls.cli import console
    from dls.server.sockets import addresses

    found = gpus.local()
    gpu = f"Using GPU {found[0].index}: {found[0].name}" if found else "No GPU found"
    if listening.engine.device == "cpu":
        gpu = f"{'GPU ' + found[0].name + ' is not used' if found else 'No GPU found'}: this engine computes on the CPU"
    notes = []
    if listening.options.stand_in:
        notes.append(f"{listening.engine.name} stands in for nnInteractive: it is listed under that name too.")
    if listening.options.uds is not None:
        notes.append(f"Listening on the Unix socket {listening.options.uds}")
    if listening.options.is_public and listening.options.open:
        notes.append("Everybody who can reach this port can use the server (--open).")
    if options["insecure"]:
        notes.append(UNCHECKED)
    found_addresses = addresses(listening.options.host, listening.port, listening.secret)
    rows = [(row.server, row.port, row.local_only) for row in found_addresses]
    engine = f"{listening.engine.name} on {listening.engine.device}, models: {', '.join(listening.models)}"
    console.show_banner(console.stderr(use_colors), gpu, engine, rows, notes)


@cli.command()
@click.option("--once", is_flag=True, help="End after the picture is written.")
@click.option(
    "--picture",
    default="dls-demo.png",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where the picture goes.",
)
def demo(once: bool, picture: Path) -> None:
    """Try everything on this computer: an SSH server of its own, then `dls connect` to it."""
    try:
        from dls.demo import play
    except ImportError as error:
        raise HostError(
            f"The demo's packages are not installed here ({error.name}).",
            'Install them: pip install "dls[demo]"',
        ) from error
    with people() as (screen, reporter, _), _sigterm_interrupts():
        play.run(screen, reporter, once=once, picture=picture)


for command in (models, stop, logs, sessions):
    cli.add_command(command)
