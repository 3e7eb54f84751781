"""The options that several commands share, also `dls serve`, and their conversion into values for other packages."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dls.contract import DEFAULT_ENGINE, DEFAULT_TTL
from dls.errors import TargetError

if TYPE_CHECKING:
    from dls.weights import ModelSpec

Command = TypeVar("Command", bound=Callable[..., Any])

INSECURE_NOTE = "Certificates are not checked (--insecure); --ca-bundle FILE is safer."
"""Shown whenever --insecure is used."""
DEVICES = "auto, cpu, cuda, cuda:N or mps"
"""Devices that --device takes, as help and messages list them."""


def add_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """Add the options in the order in which `--help` lists them."""
    for option in reversed(options):
        command = option(command)
    return command


MODEL_OPTIONS = [
    click.option(
        "-m",
        "--models-path",
        help="Folder for models; by default $NNINTERACTIVE_MODEL_DIR or ~/.nninteractive.",
    ),
    click.option("-k", "--insecure", is_flag=True, help="Check no certificates when models are downloaded."),
    click.option("--ca-bundle", metavar="FILE", help="CA certificates to trust when models are downloaded."),
    click.option("--no-network", is_flag=True, help="Download no model: one that is missing is an error."),
]
"""Options that say where models are and how they may be downloaded."""


def model_options(command: Command) -> Command:
    """Add the options of commands that look for models."""
    return add_options(command, MODEL_OPTIONS)


def _complete(what: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return what completes an option's value; its module is imported when a shell asks."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        from dls.cli import completion

        found: list[str] = getattr(completion, f"complete_{what}")(context, parameter, incomplete)
        return found

    return complete


def _device_option(command: Command) -> Command:
    """Add --device."""
    option = click.option(
        "--device",
        shell_complete=_complete("device"),
        default="auto",
        show_default=True,
        metavar="DEVICE",
        callback=check_device,
        help=f"Device that the engine computes on: {DEVICES}.",
    )
    return option(command)


def engine_options(command: Command) -> Command:
    """Add the options that select the engine and its model; all paths are paths on the server's machine."""
    options = [
        click.option(
            "--engine",
            shell_complete=_complete("engine"),
            default=DEFAULT_ENGINE,
            show_default=True,
            metavar="[auto|nninteractive|region]",
            help="Engine that segments; auto is nninteractive where a GPU can run it, else region.",
        ),
        _device_option,
        click.option(
            "--stand-in",
            is_flag=True,
            help="List region under the name nnInteractive too: ITK-SNAP's lasso works with that name only.",
        ),
        click.option(
            "--model",
            metavar="ID",
            shell_complete=_complete("model"),
            help="Model to use: an ID or a folder; by default the official model.",
        ),
        *MODEL_OPTIONS,
        click.option(
            "--accept-licence",
            is_flag=True,
            help="Agree to the licence of nnInteractive's weights, which forbids commercial use.",
        ),
        click.option("--compile", is_flag=True, help="Compile the network: slower start, faster clicks."),
        click.option(
            "--native-api/--no-native-api",
            default=True,
            show_default=True,
            help="Serve nnInteractive's own protocol too, for napari, 3D Slicer and MITK.",
        ),
    ]
    return add_options(command, options)


def session_options(command: Command) -> Command:
    """Add the options of what is stored of sessions, where and how long; the path is one on the server's machine."""
    options = [
        click.option(
            "--session-dir", metavar="FOLDER", help="Folder to store sessions in; by default on the local disks."
        ),
        click.option(
            "--session-ttl",
            metavar="DAYS",
            default=DEFAULT_TTL / 86400,
            show_default=True,
            type=click.FloatRange(min=0.001),
            help="Remove a session after this many days without use.",
        ),
        click.option(
            "--session-disk",
            metavar="GIB",
            type=click.FloatRange(min=0.001),
            help="Most that all sessions may take on the disk; by default 20 % of it, and at least 10 GiB.",
        ),
    ]
    return add_options(command, options)


def page_option(command: Command) -> Command:
    """Add the option that turns the page off."""
    help = "Serve no page for people at the port: what the server does, with pictures of the sessions."
    return click.option("--no-page", is_flag=True, help=help)(command)


def check_device(context: click.Context, parameter: click.Parameter, device: str) -> str:
    """Return the value of --device; raises BadParameter for one that names no device."""
    kind, colon, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and number.isdigit())):
        raise click.BadParameter(f"{device!r} is none of {DEVICES}.")
    return device


def build_model_spec(options: dict[str, Any]) -> ModelSpec:
    """Return the values of the options that `model_options` adds, and of `model` where the command has it."""
    from dls.weights import ModelSpec

    return ModelSpec(
        options.get("model"),
        expand_path(options["models_path"]),
        network=not options["no_network"],
        insecure=options["insecure"],
        ca_bundle=expand_path(options["ca_bundle"]),
    )


def expand_path(name: str | None) -> Path | None:
    """Return the path with `~` replaced by the home directory; None for no name."""
    return Path(name).expanduser() if name else None


def read_first_line(name: str | None, option: str) -> str | None:
    """Return the first line of the file, or of standard input for `-`; None for no name.

    Raises TargetError, which names the option, for a file that can't be read.
    """
    if name is None:
        return None
    try:
        text = sys.stdin.readline() if name == "-" else _decode(Path(name).read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"The file {name} can't be read.", f"Name another one with {option}.") from error
    return text.split("\n", 1)[0].rstrip("\r")


def _decode(data: bytes) -> str:
    """Return a text file's text; Notepad and PowerShell mark the encoding at the beginning, the latter's is UTF-16."""
    return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
