"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

DEVICES = "auto, cpu, cuda, cuda:N or mps"


def reach_options(command: F) -> F:
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
        click.option("--remote-dir", default="~/.dls", show_default=True, help="Where everything goes on the host."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def engine_options(command: F) -> F:
    """Add the options that say what segments and where its model is; all paths are of the server's machine."""
    options = [
        click.option("--engine", default="region", show_default=True, help="What segments: region or nninteractive."),
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
        click.option(
            "-m",
            "--models-path",
            help="Where models are kept; by default $NNINTERACTIVE_MODEL_DIR or ~/.nninteractive.",
        ),
        click.option("-k", "--insecure", is_flag=True, help="Check no certificates when models are downloaded."),
        click.option("--ca-bundle", metavar="FILE", help="Certificates to trust when models are downloaded."),
        click.option("--no-network", is_flag=True, help="Never download anything."),
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


def check_device(context: click.Context, parameter: click.Parameter, device: str) -> str:
    """Refuse what is no device before anything is done."""
    kind, colon, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and number.isdigit())):
        raise click.BadParameter(f"{device!r} is none of {DEVICES}.")
    return device
