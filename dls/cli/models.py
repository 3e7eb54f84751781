"""`dls models`: look at models, fetch them, and bring them to a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dls.cli.options import UNCHECKED, login_options, login_options_of, model_options, people, wish_of


@click.group()
def models() -> None:
    """Look at models, fetch them, and bring them to a host."""


@models.command("list")
@model_options
def list_models(**options: Any) -> None:
    """List the models there are, and where those are that are here."""
    from dls import weights as store

    wish = wish_of(options)
    entries = store.listed(wish)
    for entry in entries:
        default = " (default)" if entry.get("default") else ""
        click.echo(f"{entry['id']}{default}\t{entry['local_path'] or 'not here'}")
    if not entries:
        click.echo(f"No model is in {wish.root / 'models'}.", err=True)


@models.command()
@click.argument("model", required=False)
@model_options
def pull(model: str | None, **options: Any) -> None:
    """Fetch MODEL, by default the official one."""
    from dls import weights as store

    wish = wish_of({**options, "model": model})
    with people() as (_, reporter, _prompter):
        if wish.insecure:
            reporter.note(UNCHECKED)
        here = store.locate(wish)
        reporter.begin("download", "Fetching the model")
        folder = store.fetch(wish, lambda text, _: reporter.update(text))
        reporter.done("download", f"The model is in {folder}", 0.0)
        if here is None:
            reporter.note(f"Licence of the weights: {store.license_of(folder)}. Please cite: {store.CITATION}")
    click.echo(folder)


@models.command("path")
@click.argument("model", required=False)
@model_options
def model_path(model: str | None, **options: Any) -> None:
    """Print where MODEL is on this computer."""
    from dls import weights as store

    wish = wish_of({**options, "model": model, "no_network": True})
    folder = store.locate(wish)
    if folder is None:
        raise store.not_here(wish)
    click.echo(folder)


@models.command()
@click.argument("target", metavar="[USER@]HOST[:PORT]")
@click.argument("folder", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@login_options
@click.option("-m", "--models-path", help="Where models are kept on the host.")
def push(target: str, folder: Path | None, models_path: str | None, **options: Any) -> None:
    """Bring a model's FOLDER, by default the official model's, to HOST."""
    from dls import weights as store
    from dls.remote.commands import host
    from dls.remote.host import push_model as pushing
    from dls.remote.progress import Phases

    wish = store.ModelSpec(str(folder.absolute()) if folder else None, network=False)
    found = store.locate(wish)
    if found is None:
        raise store.not_here(wish)
    with (
        people() as (_, reporter, prompter),
        host(target, login_options_of(options), prompter, reporter) as (connection, _report),
        Phases(reporter)("push", f"Sending {found.name}") as phase,
    ):
        place = pushing.push(connection, found, models_path, phase)
        phase.result = f"The model is on {connection.target.label} in {place}"
    click.echo(place)
