"""The file of prompts: what it may hold, and what an error names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dls.errors import SegmentError
from dls.segment.requests import Asked, Job, parse_numbers, read_jobs


def write(folder: Path, value: object) -> Path:
    path = folder / "prompts.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_a_file_with_everything(tmp_path: Path) -> None:
    """Images, drawings and their order; names are relative to the file's folder."""
    prompts = [
        {"point": [1, 2.5, 3]},
        {"point": [4, 5, 6], "foreground": False},
        {"scribble": "s.nii.gz"},
        {"lasso": "in/l.mha", "foreground": True},
        {"box": [1, 2, 3, 4, 5, 6]},
    ]
    path = write(tmp_path, {"coordinates": "ras", "images": {"a.nii.gz": prompts, "été.nrrd": [{"point": [1, 2]}]}})
    first, second = read_jobs(path)
    assert first == Job(
        tmp_path / "a.nii.gz",
        (
            Asked("point", True, (1.0, 2.5, 3.0)),
            Asked("point", False, (4.0, 5.0, 6.0)),
            Asked("scribble", True, file=tmp_path / "s.nii.gz"),
            Asked("lasso", True, file=tmp_path / "in/l.mha"),
            Asked("box", True, (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)),
        ),
        "ras",
    )
    assert second.image == tmp_path / "été.nrrd"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_a_windows_editor(tmp_path: Path, encoding: str) -> None:
    """Notepad and PowerShell put a byte order mark at the beginning; the latter writes UTF-16."""
    path = tmp_path / "prompts.json"
    path.write_text('{"images": {"é.nrrd": [{"point": [1, 2, 3]}]}}', encoding=encoding)
    assert [job.image.name for job in read_jobs(path)] == ["é.nrrd"]


@pytest.mark.parametrize(
    ("value", "place", "expected"),
    [
        ('{"images": {\n"a": [{"point": [1, 2, 3]},\n]}}', "line 3", "."),
        ([], "the whole", "an object is expected"),
        ({}, "images", "an object is expected, with a list of prompts for each image"),
        ({"images": {}, "image": 1}, "image", "there is no such field"),
        ({"images": {"a": []}}, 'images["a"]', "a list with one prompt at least"),
        ({"images": {"a": [{"point": [1, 2, 3]}, {}]}}, 'images["a"][1]', "one of point, scribble, lasso, box"),
        ({"images": {"a": [{"point": [1, 2, 3], "lasso": "l"}]}}, 'images["a"][0]', "one of point"),
        ({"images": {"a": [{"point": [1, 2, "3"]}]}}, 'images["a"][0].point', "three numbers x,y,z are expected"),
        ({"images": {"a": [{"point": [1, 2, True]}]}}, 'images["a"][0].point', "three numbers"),
        ('{"images": {"a": [{"point": [1, 2, NaN]}]}}', 'images["a"][0].point', "three numbers"),
        ({"images": {"a": [{"box": [1, 2, 3]}]}}, 'images["a"][0].box', "six numbers"),
        ({"images": {"a": [{"scribble": 3}]}}, 'images["a"][0].scribble', "the name of a label image"),
        ({"images": {"a": [{"point": [1, 2, 3], "foreground": 1}]}}, 'images["a"][0].foreground', "true or false"),
        ({"images": {"a": [{"point": [1, 2, 3], "is": 1}]}}, 'images["a"][0].is', "there is no such field"),
        ({"coordinates": "mm", "images": {"a": [{"point": [1, 2, 3]}]}}, "coordinates", "one of voxel, lps, ras"),
        ("[" * 100_000, "prompts.json", "can't be read"),
    ],
)
def test_an_error_names_its_place(tmp_path: Path, value: object, place: str, expected: str) -> None:
    """The line of what is no JSON, and the field of what is of another type, with what is expected there."""
    path = write(tmp_path, value)
    with pytest.raises(SegmentError) as caught:
        read_jobs(path)
    assert place in caught.value.message and expected in caught.value.message and caught.value.hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named, with the option that named it."""
    with pytest.raises(SegmentError, match=r"nothing\.json can't be read"):
        read_jobs(tmp_path / "nothing.json")


@pytest.mark.parametrize("text", ["", "1", "1,2,3,4", "1,2,x", "1,2,nan", "1,2,inf", "1 2 3"])
def test_coordinates_on_the_command_line(text: str) -> None:
    """Two numbers for a slice, three for a volume, and nothing else."""
    assert parse_numbers("1,-2.5,3e1", "point") == (1.0, -2.5, 30.0)
    assert parse_numbers("1,2", "point") == (1.0, 2.0)
    with pytest.raises(ValueError, match="three numbers"):
        parse_numbers(text, "point")
