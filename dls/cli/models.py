"""`dls models`: list and download models, and copy them to a host."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dls.cli.completion import complete_model
from dls.cli.help import GroupedCommand
from dls.cli.login_options import build_login_options, login_options
from dls.cli.options import INSECURE_NOTE, build_model_spec, model_options
from dls.cli.target_argument import target_argument
from dls.errors import EngineError

if TYPE_CHECKING:
    from dls.remote.host.send_files import FileSource


@click.group()
def models() -> None:
    """List and download models, and copy them to a host.

    Example: dls models push ann@gpuhost
    """


@models.command("list")
@model_options
def list_models(**options: Any) -> None:
    """List the known models.

    Each with its folder where it is on this computer; without internet only these.
    """
    from dls import weights

    spec = build_model_spec(options)
    try:
        entries = weights.list_models(spec)
    except EngineError as error:
        entries = weights.list_models(replace(spec, network=False))
        if not entries:
            raise
        click.echo(f"Only models on this computer are listed: {error.message}", err=True)
    for entry in entries:
        default = " (default)" if entry.get("default") else ""
        click.echo(f"{entry['id']}{default}\t{entry['local_path'] or 'not here'}")
    if not entries:
        click.echo(f"There is no model in {spec.root / 'models'}.", err=True)


@models.command()
@click.argument("model", required=False, shell_complete=complete_model)
@model_options
def pull(model: str | None, **options: Any) -> None:
    """Download MODEL, by default the official one.

    Example: dls models pull
    """
    from dls import weights
    from dls.cli.console import terminal
    from dls.remote.progress import Phases, show_download

    spec = build_model_spec({**options, "model": model})
    with terminal() as (_, reporter, _prompter):
        if spec.insecure:
            reporter.note(INSECURE_NOTE)
        present = weights.locate(spec)
        if present is not None:
            folder = present
        else:
            with Phases(reporter)("download", "Downloading the model") as phase:
                folder = weights.fetch(spec, show_download(phase))
                phase.result = f"The model is in {folder}"
        if present is None:
            reporter.note(f"Licence of the weights: {weights.read_license(folder)}. Please cite: {weights.CITATION}")
    click.echo(folder)


@models.command("path")
@click.argument("model", required=False, shell_complete=complete_model)
@model_options
def model_path(model: str | None, **options: Any) -> None:
    """Print the folder of MODEL on this computer."""
    from dls import weights

    spec = build_model_spec({**options, "model": model, "no_network": True})
    folder = weights.locate(spec)
    if folder is None:
        raise weights.absent_error(spec, "Fetch it with `dls models pull`.")
    click.echo(folder)


@models.command(cls=GroupedCommand)
@target_argument
@click.argument("folder", required=False, type=click.Path(path_type=Path, exists=True))
@login_options
@click.option("-m", "--models-path", help="Folder for models on the host.")
def push(target: str, folder: Path | None, models_path: str | None, **options: Any) -> None:
    """Copy the model in FOLDER, by default the official one, to HOST.

    FOLDER may be a file that `dls pack` made: its weights are copied then.
    """
    from dls.cli.console import terminal, write_line
    from dls.remote.commands import host
    from dls.remote.host import push_model
    from dls.remote.progress import Phases

    source = _find_source(target, folder)
    with (
        terminal() as (_, reporter, prompter),
        host(target, build_login_options(options), prompter, reporter) as (connection, _report),
        Phases(reporter)("push", f"Sending {source.name}") as phase,
    ):
        destination = push_model.push(connection, source, models_path, phase)
        phase.result = f"The model is on {connection.target.label} in {destination}"
    write_line(destination)


def _find_source(target: str, folder: Path | None) -> FileSource:
    """Return the model in a folder or in a parcel, by default the one on this computer; raises a DlsError for none."""
    from dls import weights
    from dls.remote.host.push_model import ModelFolder
    from dls.remote.parcel.archive import Parcel, find_model

    if folder is not None and folder.is_file():
        return find_model(Parcel.open(folder))
    spec = weights.ModelSpec(str(folder.absolute()) if folder else None, network=False)
    found = weights.locate(spec)
    if found is None:
        hint = f"Fetch it here first with `dls models pull`, or name its folder: dls models push {target} FOLDER."
        raise weights.absent_error(spec, hint)
    return ModelFolder(found)
