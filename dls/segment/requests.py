"""What prompts were asked for, on the command line or in a file, and how they fit an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dls.errors import SegmentError
from dls.segment import images
from dls.segment.grid import SYSTEMS, VOXEL, Grid
from dls.segment.prompts import Box, Lasso, Point, Prompt, Scribble, check_prompt

POINT, SCRIBBLE, LASSO, BOX = "point", "scribble", "lasso", "box"
KINDS = (POINT, SCRIBBLE, LASSO, BOX)
AXES = (2, 3)
"""Numbers of axes of images."""


@dataclass(frozen=True)
class Asked:
    """One prompt as it was asked for, with coordinates in the order (x, y, z)."""

    kind: str
    foreground: bool = True
    numbers: tuple[float, ...] = ()
    """The coordinates of a point, or of both corners of a box."""
    file: Path | None = None
    """The label image of a scribble or lasso."""

    def describe(self) -> str:
        """Return the prompt as a message names it."""
        if self.file is not None:
            return f"The {self.kind} {self.file}"
        return f"The {self.kind} {','.join(f'{number:g}' for number in self.numbers)}"


@dataclass(frozen=True)
class Job:
    """An image and what is asked for in it."""

    image: Path
    asked: tuple[Asked, ...]
    system: str = VOXEL


def parse_numbers(text: str, kind: str) -> tuple[float, ...]:
    """Return the numbers of a point or a box, separated by commas; raises ValueError that says what is expected."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    return check_count(numbers, kind)


def check_count(numbers: tuple[float, ...], kind: str) -> tuple[float, ...]:
    """Return the numbers; raises ValueError for a number of them that makes no point and no box."""
    corners = 2 if kind == BOX else 1
    if len(numbers) not in tuple(corners * axes for axes in AXES) or not all(abs(one) < 1e9 for one in numbers):
        raise ValueError(
            "six numbers x1,y1,z1,x2,y2,z2 are expected" if kind == BOX else "three numbers x,y,z are expected"
        )
    return numbers


def check_fit(job: Job, grid: Grid) -> None:
    """Raise SegmentError unless each prompt fits the image."""
    for asked in job.asked:
        check_prompt(_fit(asked, grid, job.system), grid.shape, asked.describe())


def fit(job: Job, grid: Grid) -> list[Prompt]:
    """Return the prompts for the image; raises SegmentError for those that do not fit it."""
    return [_fit(asked, grid, job.system) for asked in job.asked]


def _fit(asked: Asked, grid: Grid, system: str) -> Prompt:
    if asked.file is not None:
        image = images.read(asked.file)
        _check_same(asked, grid, image.grid)
        kind = Scribble if asked.kind == SCRIBBLE else Lasso
        return kind(image.voxels != 0, asked.foreground)
    first, *second = _voxels(asked, grid, system)
    if asked.kind == POINT:
        return Point(*first, foreground=asked.foreground)
    corners = list(zip(first, *second, strict=True))
    z1, y1, x1 = (min(pair) for pair in corners)
    z2, y2, x2 = (max(pair) for pair in corners)
    return Box((z1, y1, x1), (z2, y2, x2), asked.foreground)


def _voxels(asked: Asked, grid: Grid, system: str) -> list[tuple[int, int, int]]:
    half = len(asked.numbers) // 2
    corners = (asked.numbers[:half], asked.numbers[half:]) if asked.kind == BOX else (asked.numbers,)
    return [grid.to_voxel(corner, system, asked.describe()) for corner in corners]


def _check_same(asked: Asked, grid: Grid, drawn: Grid) -> None:
    if difference := grid.differs(drawn):
        raise SegmentError(
            f"{asked.describe()} is not on the image's grid: it has {difference}.",
            "Draw on the image itself, and save the drawing as a label image.",
        )


def read_jobs(path: Path) -> list[Job]:
    """Read a file of prompts (docs/segment.md describes it); raises SegmentError, which names the line or the field."""
    try:
        value = json.loads(path.read_bytes())  # in UTF-8 or UTF-16, with or without a byte order mark
    except json.JSONDecodeError as error:
        raise SegmentError(f"{path}, line {error.lineno}: {error.msg}.", "The file must be JSON.") from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise SegmentError(f"The file {path} can't be read.", "Name another one with --prompts.") from error
    try:
        return _parse_jobs(value, path.parent)
    except FieldError as error:
        raise SegmentError(
            f"{path}, {error.field}: {error.expected}.", "docs/segment.md describes the file."
        ) from error


class FieldError(ValueError):
    """A field of the file holds something else than is expected."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(field)
        self.field = field or "the whole"
        self.expected = expected


def _parse_jobs(value: Any, folder: Path) -> list[Job]:
    fields = _object(value, "", ("images", "coordinates"))
    system = fields.get("coordinates", VOXEL)
    if system not in SYSTEMS:
        raise FieldError("coordinates", f"one of {', '.join(SYSTEMS)} is expected")
    found = fields.get("images")
    if not isinstance(found, dict) or not found:
        raise FieldError("images", "an object is expected, with a list of prompts for each image")
    jobs = []
    for name, prompts in found.items():
        where = f"images[{json.dumps(name, ensure_ascii=False)}]"
        if not isinstance(prompts, list) or not prompts:
            raise FieldError(where, "a list with one prompt at least is expected")
        asked = tuple(_parse_prompt(each, f"{where}[{at}]", folder) for at, each in enumerate(prompts))
        jobs.append(Job(folder / name, asked, system))
    return jobs


def _parse_prompt(value: Any, where: str, folder: Path) -> Asked:
    fields = _object(value, where, (*KINDS, "foreground"))
    kinds = [kind for kind in KINDS if kind in fields]
    if len(kinds) != 1:
        raise FieldError(where, f"one of {', '.join(KINDS)} is expected")
    [kind] = kinds
    foreground = fields.get("foreground", True)
    if not isinstance(foreground, bool):
        raise FieldError(f"{where}.foreground", "true or false is expected")
    given = fields[kind]
    if kind in (SCRIBBLE, LASSO):
        if not isinstance(given, str) or not given:
            raise FieldError(f"{where}.{kind}", "the name of a label image is expected")
        return Asked(kind, foreground, file=folder / given)
    return Asked(kind, foreground, _parse_list(given, f"{where}.{kind}", kind))


def _parse_list(value: Any, where: str, kind: str) -> tuple[float, ...]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in value):
        value = ()
    try:
        return check_count(tuple(float(one) for one in value), kind)
    except (ValueError, OverflowError) as error:
        raise FieldError(where, str(error)) from error


def _object(value: Any, where: str, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldError(where, "an object is expected")
    for name in value:
        if name not in names:
            raise FieldError(f"{where}.{name}".lstrip("."), f"there is no such field; there are {', '.join(names)}")
    return value
