"""`dls segment`: segment image files without a viewer, on this computer or on a host."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from dls.cli.help import GroupedCommand
from dls.cli.login_options import (
    build_cluster_options,
    build_login_options,
    build_network_options,
    cluster_options,
    login_options_without_o,
    network_options,
    start_reading_configuration,
)
from dls.cli.options import Command, add_options, engine_options, read_first_line
from dls.cli.signals import interrupt_on_termination
from dls.cli.target_argument import complete_host
from dls.errors import HostError, SegmentError
from dls.extras import install_hint

if TYPE_CHECKING:
    from dls.remote.progress import Phases, Reporter
    from dls.remote.ssh.prompts import Prompter
    from dls.segment.http import Address
    from dls.segment.plan import Task
    from dls.segment.requests import Asked
    from dls.segment.segmenter import Segmenter

ORDER = "dls.cli.segment.order"
"""Key of the click context under which the names of the options stand in the order of the command line."""
PROMPT_OPTIONS = {
    "point": ("point", True),
    "background": ("point", False),
    "scribble": ("scribble", True),
    "background_scribble": ("scribble", False),
    "lasso": ("lasso", True),
    "background_lasso": ("lasso", False),
    "box": ("box", True),
    "background_box": ("box", False),
}
"""By option: the kind of prompt, and whether it is of the foreground."""
TRANSFER_SECONDS = 0.5


class OrderedCommand(GroupedCommand):
    """A command that remembers in which order its options were given: prompts are applied in that order."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep the order of the options."""
        ctx.meta[ORDER] = [parameter.name for parameter in self.make_parser(ctx).parse_args(args=list(args))[2]]
        return super().parse_args(ctx, args)


def _prompt_option(name: str, metavar: str, text: str) -> Callable[[Command], Command]:
    return click.option(name, multiple=True, metavar=metavar, callback=_check_prompts, help=text)


@contextlib.contextmanager
def _naming_missing_packages() -> Iterator[None]:
    """Raise HostError where a package of the extra is missing that is imported meanwhile."""
    try:
        yield
    except ImportError as error:
        raise HostError(f"The package {error.name} is not installed here.", install_hint("segment")) from error


def _check_prompts(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Asked, ...]:
    if not values:
        return ()
    with _naming_missing_packages():
        from dls.segment.requests import Asked, parse_numbers

    kind, foreground = PROMPT_OPTIONS[str(parameter.name)]
    if kind in ("scribble", "lasso"):
        return tuple(Asked(kind, foreground, file=Path(value)) for value in values)
    try:
        return tuple(Asked(kind, foreground, parse_numbers(value, kind)) for value in values)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


NUMBERS, CORNERS, LABELS = "X,Y,Z", "X1,Y1,Z1,X2,Y2,Z2", "FILE"
OPTIONS: list[Callable[..., Any]] = [
    _prompt_option("--point", NUMBERS, "Click on the object; all prompts may be given several times, in any order."),
    _prompt_option("--background", NUMBERS, "Click beside the object."),
    _prompt_option("--scribble", LABELS, "Stroke on the object: a label image on the image's grid."),
    _prompt_option("--background-scribble", LABELS, "Stroke beside the object."),
    _prompt_option("--lasso", LABELS, "Outline around the object: a label image, drawn on one slice."),
    _prompt_option("--background-lasso", LABELS, "Outline around what does not belong to the object."),
    _prompt_option("--box", CORNERS, "Box around the object, by two corners; needs nnInteractive."),
    _prompt_option("--background-box", CORNERS, "Box around what does not belong to the object."),
    click.option(
        "--prompts", "prompt_file", type=click.Path(path_type=Path), help="JSON file with the prompts of each image."
    ),
    click.option(
        "--mm",
        "system",
        flag_value="lps",
        help='Coordinates are mm as ITK has them: "World units (ITK)" in ITK-SNAP.',
    ),
    click.option("--ras", "system", flag_value="ras", help="Coordinates are mm as NIfTI has them, x to the right."),
    click.option(
        "-o",
        "--output",
        required=True,
        type=click.Path(),
        help="File for the mask: .nii.gz, .nii, .nrrd or .mha; for several images a folder.",
    ),
    click.option(
        "--png", "picture", type=click.Path(path_type=Path), help="File, or folder, for a picture to look at."
    ),
    click.option("--series", default="", metavar="UID", help="DICOM series to take, in a folder with several."),
    click.option("--force", is_flag=True, help="Overwrite masks and pictures that are there."),
    click.option("--skip-existing", is_flag=True, help="Leave out images whose mask is there."),
    click.option(
        "--host",
        "target",
        metavar="[USER@]HOST[:PORT]",
        shell_complete=complete_host,
        help="Segment on this host, over SSH.",
    ),
    click.option("--server", metavar="URL", help="Use a server that runs, as http://localhost:8911 of dls connect."),
    click.option(
        "--secret-file",
        type=click.Path(allow_dash=True),
        help="File whose first line is the secret of --server; else DLS_SECRET in the environment.",
    ),
    click.option("--gpu", type=click.IntRange(0), help="With --host: number of the GPU to use."),
]


@click.command(cls=OrderedCommand)
@click.argument("images", nargs=-1, metavar="[IMAGE]...", type=click.Path(path_type=Path))
@(lambda command: add_options(command, OPTIONS))
@engine_options
@login_options_without_o
@cluster_options
@network_options
@click.option("--json", "as_json", is_flag=True, help="Write JSON lines to standard output.")
@click.pass_context
def segment(context: click.Context, /, images: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Segment image files without a viewer.

    IMAGE is a NIfTI, NRRD or MetaImage file, or a folder with a DICOM series. Coordinates are voxels, counted from 0
    (ITK-SNAP counts them from 1), or millimetres with --mm or --ras.

    Example: dls segment ct.nii.gz --point 120,84,31 -o mask.nii.gz --png look.png
    """
    from dls.cli.console import terminal
    from dls.remote.progress import Phases

    with terminal(as_json) as (_, reporter, prompter), interrupt_on_termination():
        tasks = _plan(context, images, options, reporter)
        if not tasks:
            return
        phases = Phases(reporter)
        with _open_address(context, options, reporter, prompter, phases) as address:
            from dls.segment.segmenter import Segmenter

            with Segmenter(address) as segmenter:
                for number, task in enumerate(tasks, 1):
                    _run(task, segmenter, phases, options["series"], _Place(number, len(tasks)), as_json)


def _plan(context: click.Context, images: Sequence[Path], options: dict[str, Any], reporter: Reporter) -> list[Task]:
    """Return what is to be done; raises SegmentError before anything is started."""
    with _naming_missing_packages():
        from dls.segment import plan
        from dls.segment.images import load_simpleitk
        from dls.segment.requests import Job, read_jobs

    if options["target"] and options["server"]:
        raise SegmentError("--host and --server name two places.", "Leave out one of them.")
    load_simpleitk()
    listed = read_jobs(options["prompt_file"]) if options["prompt_file"] else []
    prompted = Job(Path(), tuple(_in_order(context.meta[ORDER], options)), options["system"] or "voxel")
    jobs = plan.choose_jobs(images, prompted, listed)
    into_folder = options["output"].endswith((os.sep, "/"))
    tasks = plan.plan(jobs, Path(options["output"]), options["picture"], into_folder=into_folder)
    if options["skip_existing"]:
        there = [task for task in tasks if task.mask.exists()]
        tasks = [task for task in tasks if task not in there]
        if there:
            reporter.note(f"Left out {len(there)} of {len(there) + len(tasks)} images: their masks are there.")
    plan.check(tasks, force=options["force"])
    return tasks


def _in_order(order: Sequence[str], options: dict[str, Any]) -> Iterator[Asked]:
    """Yield the prompts of the command line in the order in which they stand there."""
    left = {name: iter(options[name]) for name in PROMPT_OPTIONS}
    for name in order:
        if name in left:
            yield next(left[name])


@contextlib.contextmanager
def _open_address(
    context: click.Context, options: dict[str, Any], reporter: Reporter, prompter: Prompter, phases: Phases
) -> Iterator[Address]:
    """Yield the address of the server: that of --server, one on --host, or one on this computer for this command."""
    from dls.segment.http import Address

    if options["server"]:
        secret = read_first_line(options["secret_file"], "--secret-file") or os.environ.get("DLS_SECRET")
        yield Address.parse(options["server"], secret)
    elif options["target"] or options["via"]:
        with _connect(context, options, reporter, prompter) as address:
            yield address
    else:
        from dls.segment.local import serving

        with serving(_serve_options(context), phases) as address:
            yield address


@contextlib.contextmanager
def _connect(
    context: click.Context, options: dict[str, Any], reporter: Reporter, prompter: Prompter
) -> Iterator[Address]:
    from dls.cli import profiles
    from dls.cli.connect import connect as command
    from dls.cli.connect_options import build_server_options

    target = options["target"] or ""
    defaults = command.make_context("connect", [target or "host"]).params
    options = profiles.apply(context, target, {**defaults, **options})
    login = build_login_options(options)
    start_reading_configuration(target, login)
    from dls.remote.session import connect
    from dls.segment.http import Address

    with connect(
        target,
        server=build_server_options(options["gpu"], options),
        login=login,
        cluster=build_cluster_options(options),
        network=build_network_options(options),
        local_port=0,  # any free one: nobody types it
        local_secret=True,
        accept_licence=options["accept_licence"],
        page=False,
        prompter=prompter,
        reporter=reporter,
    ) as session:
        yield Address.parse(session.url)


def _serve_options(context: click.Context) -> list[str]:
    """Return the options of `dls serve` that were given to this command, as it takes them."""
    from dls.cli.serve import serve

    taken = {each.name for each in serve.params}
    words = []
    for parameter in context.command.params:
        name = str(parameter.name)
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if isinstance(parameter, click.Option) and name in taken and is_given:
            value = context.params[name]
            if not parameter.is_flag:
                words += [parameter.opts[-1], str(value)]
            else:
                words.append((parameter.opts if value else parameter.secondary_opts)[-1])
    return words


class _Place:
    """Which of several images it is."""

    def __init__(self, number: int, total: int) -> None:
        self.prefix = f"{number} of {total}: " if total > 1 else ""


def _run(task: Task, segmenter: Segmenter, phases: Phases, series: str, place: _Place, as_json: bool) -> None:
    """Segment one image, and write its mask and its picture."""
    from dls.cli.events import write_event
    from dls.segment import images, picture
    from dls.segment.requests import fit

    started = time.monotonic()
    with phases("segment", f"{place.prefix}{task.job.image.name}") as phase:
        phase.update("reading")
        image = images.read(task.job.image, series)
        prompts = fit(task.job, image.grid)
        phase.update("sending")
        mask = segmenter.segment(
            image.voxels,
            prompts,
            image.grid.volume_spacing,
            sent=_show_sent(phases),
            applied=lambda number: phase.update(f"prompt {number} of {len(prompts)}"),
        )
        images.write_mask(task.mask, mask, image.grid)
        if task.picture is not None:
            picture.draw(task.picture, image.voxels, mask, image.grid)
        voxels, volume = int(mask.sum()), float(mask.sum() * image.grid.voxel_mm3 / 1000)
        phase.result = f"{place.prefix}{task.mask}: {voxels:,} voxels, {volume:.2f} ml"
    if not voxels:
        phases.reporter.note(f"The mask of {task.job.image.name} is empty.")
    if as_json:
        write_event(
            "mask",
            image=str(task.job.image),
            mask=str(task.mask),
            picture=None if task.picture is None else str(task.picture),
            voxels=voxels,
            ml=round(volume, 4),
            prompts=len(prompts),
            seconds=round(time.monotonic() - started, 3),
        )


def _show_sent(phases: Phases) -> Callable[[int, int], None]:
    """Return what shows how much of an image was sent, twice a second at most."""
    from dls.remote.progress import Phase, Transfer

    started = shown = time.monotonic()
    phase = Phase(phases.reporter)

    def show(done: int, total: int) -> None:
        nonlocal started, shown
        now = time.monotonic()
        if done == 0:  # before that, it was compressed
            started = shown = now
        elif now - shown >= TRANSFER_SECONDS:
            shown = now
            phase.transfer(Transfer("the image", done, total, done / (now - started)))

    return show
