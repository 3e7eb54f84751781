"""What `dls segment` is to do: which images, by which prompts, into which files; checked before a server is needed."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dls.errors import SegmentError
from dls.segment import images
from dls.segment.requests import Job, check_fit

DEFAULT_ENDING = ".nii.gz"


@dataclass(frozen=True)
class Task:
    """One image to segment: the job, the mask's file and that of the picture."""

    job: Job
    mask: Path
    picture: Path | None = None


def choose_jobs(paths: Sequence[Path], prompted: Job, listed: Sequence[Job]) -> list[Job]:
    """Return the jobs: those of the file with prompts, of the named images only, or each image with `prompted`.

    `prompted` has the prompts of the command line; its image means nothing. Raises SegmentError.
    """
    if not listed:
        if not paths:
            raise SegmentError("No image is named.", "Name one: dls segment IMAGE --point x,y,z -o MASK")
        if not prompted.asked:
            raise SegmentError("There is no prompt.", "Give one point at least: --point x,y,z")
        return [Job(path, prompted.asked, prompted.system) for path in _expand(paths)]
    if prompted.asked:
        raise SegmentError("Prompts are either in a file (--prompts) or on the command line.", "Leave out one of them.")
    paths = list(_expand(paths))
    by_path = {job.image.resolve(): job for job in listed}
    for path in paths:
        if path.resolve() not in by_path:
            raise SegmentError(f"The file of --prompts has none for {path}.", "Add them, or leave out the image.")
    return [by_path[path.resolve()] for path in paths] if paths else list(listed)


def _expand(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the paths, and in the place of a pattern what it stands for: the shells of Windows leave that to us.

    Signs are `*` and `?`; brackets stand in the names of images.
    """
    for path in paths:
        pattern = str(path).replace("[", "[[]")
        found = [] if path.exists() else sorted(glob.glob(pattern))  # noqa: PTH207 - the pattern may be absolute
        yield from map(Path, found or [str(path)])


def plan(
    jobs: Sequence[Job],
    output: Path,
    picture: Path | None,
    *,
    into_folder: bool = False,
    folds_case: bool = sys.platform in ("darwin", "win32"),
) -> list[Task]:
    """Return the tasks: the mask of one image is `output`; those of several, or with `into_folder`, go in there.

    `folds_case` says that `A.mha` and `a.mha` are one file here. Raises SegmentError for two masks of one name, and for
    a name that no mask is written to.
    """
    if len(jobs) == 1 and not output.is_dir() and not into_folder:
        images.ending(output)
        if picture is not None and picture.is_dir():
            picture = picture / f"{_stem(jobs[0].image)}.png"
        return [Task(jobs[0], output, picture)]
    if output.exists() and not output.is_dir():
        raise SegmentError(f"{output} is a file; masks of several images go into a folder.", "Name a folder with -o.")
    tasks = [
        Task(job, output / _mask_name(job.image), picture / f"{_stem(job.image)}.png" if picture else None)
        for job in jobs
    ]
    names: dict[str, Path] = {}
    for task in tasks:
        for path in filter(None, (task.mask, task.picture)):
            name = str(path).casefold() if folds_case else str(path)
            if name in names:
                raise SegmentError(
                    f"{path} would be written for both {names[name]} and {task.job.image}.",
                    "Segment them into two folders.",
                )
            names[name] = task.job.image
    return tasks


def _stem(image: Path) -> str:
    name = image.resolve().name
    known = next((end for end in images.READ_ENDINGS if name.lower().endswith(end) and len(name) > len(end)), "")
    return name[: len(name) - len(known)]


def _mask_name(image: Path) -> str:
    """Return the name of an image's mask: that of the image, where masks are written in its format."""
    name = image.resolve().name
    is_kept = any(name.lower().endswith(end) for end in images.MASK_ENDINGS) and not image.is_dir()
    return name if is_kept else _stem(image) + DEFAULT_ENDING


def check(tasks: Sequence[Task], *, force: bool) -> None:
    """Raise SegmentError for a task that would fail at its image's head, its prompts or its files."""
    for task in tasks:
        for path in filter(None, (task.mask, task.picture)):
            if path.resolve() == task.job.image.resolve():
                raise SegmentError(f"The image {path} would be overwritten.", "Name another file with -o.")
            if path.is_dir():
                raise SegmentError(f"{path} is a folder.", "Name a file.")
            if path.exists() and not force:
                raise SegmentError(f"{path} is there already.", "Use --force to overwrite it, or --skip-existing.")
        if (grid := images.read_grid(task.job.image)) is not None:
            check_fit(task.job, grid)
