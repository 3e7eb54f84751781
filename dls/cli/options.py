"""The options that several commands share, and what becomes of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dls.contract import DEFAULT_ENGINE, DEFAULT_REMOTE_DIR, DEFAULT_TTL
from dls.errors import TargetError

if TYPE_CHECKING:
    from dls.remote.ssh.login import LoginOptions
    from dls.weights import ModelSpec

F = TypeVar("F", bound=Callable[..., Any])

UNCHECKED = "Certificates are not checked (--insecure); --ca-bundle FILE is the better way."
DEVICES = "auto, cpu, cuda, cuda:N or mps"


def login_options(command: F) -> F:
    """Add the options that every command which logs in takes."""
    options = [
        click.option(
            "-F",
            "--ssh-config",
            type=click.Path(path_type=Path),
            help="SSH configuration file instead of ~/.ssh/config.",
        ),
        click.option(
            "-i",
            "--identity",
            "identities",
            multiple=True,
            type=click.Path(path_type=Path),
            help="Private key to log in with.",
        ),
        click.option("--ssh-port", type=click.IntRange(1, 65535), help="Port of the host's SSH server."),
        click.option("--accept-new-host-key", is_flag=True, help="Trust a host that has never been seen before."),
        click.option(
            "--password-file",
            type=click.Path(allow_dash=True),
            help="File whose first line is the password (- for standard input).",
        ),
        click.option(
            "--remote-dir", default=DEFAULT_REMOTE_DIR, show_default=True, help="Where everything goes on the host."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


MODEL_OPTIONS = [
    click.option(
        "-m",
        "--models-path",
        help="Where models are kept; by default $NNINTERACTIVE_MODEL_DIR or ~/.nninteractive.",
    ),
    click.option("-k", "--insecure", is_flag=True, help="Check no certificates when models are downloaded."),
    click.option("--ca-bundle", metavar="FILE", help="Certificates to trust when models are downloaded."),
    click.option("--no-network", is_flag=True, help="Never download anything."),
]
"""Where models are and how they may be fetched."""


def model_options(command: F) -> F:
    """Add the options of commands that look for models."""
    for option in reversed(MODEL_OPTIONS):
        command = option(command)
    return command


def engine_options(command: F) -> F:
    """Add the options that say what segments and where its model is; all paths are of the server's machine."""
    options = [
        click.option(
            "--engine", default=DEFAULT_ENGINE, show_default=True, help="What segments: region or nninteractive."
        ),
        click.option(
            "--device",
            default="auto",
            show_default=True,
            metavar="DEVICE",
            callback=check_device,
            help=f"Where it computes: {DEVICES}.",
        ),
        click.option(
            "--stand-in",
            is_flag=True,
            help="List region under nnInteractive's name too, which ITK-SNAP's lasso asks for.",
        ),
        click.option("--model", metavar="ID", help="Model to use: an id, or a folder; by default the official one."),
        *MODEL_OPTIONS,
        click.option("--compile", is_flag=True, help="Compile the network: a slower start, faster clicks."),
        click.option(
            "--nninteractive-api/--no-nninteractive-api",
            default=True,
            show_default=True,
            help="Serve nnInteractive's own protocol too, for napari, 3D Slicer and MITK.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def session_options(command: F) -> F:
    """Add the options that say where sessions are kept and for how long; the path is of the server's machine."""
    options = [
        click.option("--session-dir", metavar="FOLDER", help="Where sessions are kept; by default on local disks."),
        click.option(
            "--session-ttl",
            metavar="DAYS",
            default=DEFAULT_TTL / 86400,
            show_default=True,
            type=click.FloatRange(min=0.001),
            help="Days without use after which a session is removed.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def check_device(context: click.Context, parameter: click.Parameter, device: str) -> str:
    """Refuse what is no device before anything is done."""
    kind, colon, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and number.isdigit())):
        raise click.BadParameter(f"{device!r} is none of {DEVICES}.")
    return device


def login_options_of(options: dict[str, Any]) -> LoginOptions:
    from dls.remote.ssh.login import LoginOptions

    return LoginOptions(
        ssh_config=options["ssh_config"],
        identities=tuple(options["identities"]),
        ssh_port=options["ssh_port"],
        accept_new_host_key=options["accept_new_host_key"],
        password=first_line(options["password_file"]),
        remote_dir=options["remote_dir"],
    )


def first_line(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        text = sys.stdin.readline() if name == "-" else Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"The file {name} can't be read.", "Name another one with --password-file.") from error
    return text.split("\n", 1)[0].rstrip("\r")


@contextlib.contextmanager
def people(as_json: bool = False) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the console, the reporter and the prompter; nothing prompts where there is no terminal."""
    from dls.cli import console
    from dls.remote.ssh.prompts import NoPrompter

    screen = console.stderr()
    shown = console.ConsoleReporter(screen)
    asks = sys.stdin.isatty() and sys.stderr.isatty()
    prompter = console.TerminalPrompter(shown) if asks else NoPrompter()
    try:
        yield screen, console.JsonReporter(shown) if as_json else shown, prompter
    finally:
        shown.close()


def path_of(name: str | None) -> Path | None:
    return Path(name).expanduser() if name else None


def wish_of(options: dict[str, Any]) -> ModelSpec:
    from dls.weights import ModelSpec

    return ModelSpec(
        options.get("model"),
        path_of(options["models_path"]),
        network=not options["no_network"],
        insecure=options["insecure"],
        ca_bundle=path_of(options["ca_bundle"]),
    )
