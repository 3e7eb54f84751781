"""`dls pack`: put everything that a host without internet needs into one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dls.cli.help import GroupedCommand
from dls.cli.options import expand_path
from dls.engine_choice import NNINTERACTIVE, REGION
from dls.errors import TargetError

if TYPE_CHECKING:
    from dls.weights import ModelSpec

ENGINES = (NNINTERACTIVE, REGION)
"""Engines for which there are parcels."""


@click.command(cls=GroupedCommand)
@click.option(
    "--engine",
    default=REGION,
    show_default=True,
    metavar=f"[{NNINTERACTIVE}|{REGION}]",
    shell_complete=lambda _context, _option, begun: [each for each in ENGINES if each.startswith(begun)],
    help="Engine that segments.",
)
@click.option(
    "--platform",
    default="linux-x86_64",
    show_default=True,
    metavar="PLATFORM",
    help="The host's platform: linux-x86_64 or linux-aarch64.",
)
@click.option("--python", metavar="X.Y", required=True, help="The host's version of Python, or that of --with-python.")
@click.option("--with-python", is_flag=True, help="Pack a Python too, for a host without that version.")
@click.option("--cuda", metavar="X.Y", default="", help="The newest CUDA that the host's driver runs (nvidia-smi).")
@click.option("--cpu", is_flag=True, help="Pack the build of torch for hosts without a GPU.")
@click.option("--model", metavar="ID", help="Weights to pack: an ID or a folder; by default the official model's.")
@click.option("--no-weights", is_flag=True, help="Pack no weights.")
@click.option("-m", "--models-path", metavar="FOLDER", help="Folder for models here; by default ~/.nninteractive.")
@click.option("--ca-bundle", metavar="FILE", help="CA certificates to trust, in place of this computer's own.")
@click.option("-o", "--output", required=True, metavar="FILE", type=click.Path(path_type=Path), help="File to write.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
def pack(output: Path, as_json: bool, with_python: bool, **options: Any) -> None:
    """Put all that a host without internet needs into one file.

    It is installed with `dls connect HOST --from FILE`, and no network is needed for that, here or there.

    Example: dls pack --python 3.12 -o region.parcel
    """
    from dls.cli.console import terminal, write_line
    from dls.cli.events import write_event
    from dls.remote.parcel.pack import Order, Packing
    from dls.remote.parcel.resolve import Target
    from dls.remote.progress import Phases

    if options["engine"] not in ENGINES:
        raise TargetError(
            f"There is no parcel for the engine {options['engine']!r}.", f"Choose one of: {', '.join(ENGINES)}."
        )
    if options["cpu"] and options["cuda"]:
        raise TargetError("--cpu and --cuda exclude each other.", "Leave one of them out.")
    cuda = "cpu" if options["cpu"] else options["cuda"]
    target = Target(options["engine"], options["platform"], options["python"], cuda)
    order = Order(target, _choose_model(options), with_python, expand_path(options["ca_bundle"]))
    with terminal(as_json) as (_, reporter, _prompter):
        manifest = Packing(order, output.expanduser().absolute(), Phases(reporter)).make()
        if as_json:
            write_event("packed", path=str(output), size=output.expanduser().stat().st_size, key=manifest.key)
    if not as_json:
        write_line(str(output))


def _choose_model(options: dict[str, Any]) -> ModelSpec | None:
    """Return the weights to pack; None for none, and for an engine that has none."""
    if options["no_weights"] or options["engine"] != NNINTERACTIVE:
        return None
    from dls.weights import ModelSpec

    ca_bundle = expand_path(options["ca_bundle"])
    return ModelSpec(options["model"], expand_path(options["models_path"]), ca_bundle=ca_bundle)
