"""Prompts as programs write them: what does not fit is refused, and a lasso is filled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dls
from dls.segment.prompts import check, fill_lasso

SHAPE = (4, 5, 6)


def drawing(*voxels: tuple[int, int, int]) -> np.ndarray:
    drawn = np.zeros(SHAPE, bool)
    for voxel in voxels:
        drawn[voxel] = True
    return drawn


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        ([], "There is no prompt"),
        (
            [dls.Point(0, 0, 0), dls.Point(0, 0, 6)],
            r"Prompt 2 lies outside the volume: \(0, 0, 6\)",
        ),
        ([dls.Point(-1, 0, 0)], "outside the volume"),
        ([dls.Box((0, 0, 0), (4, 1, 1))], "outside the volume"),
        ([dls.Scribble(np.ones((4, 5)))], r"has the shape \(4, 5\), the volume \(4, 5, 6\)"),
        ([dls.Scribble(drawing())], "is empty"),
        ([dls.Lasso(drawing((0, 0, 0), (1, 1, 1)))], "several slices"),
        (["point"], "Prompt 1 is a str"),
    ],
)
def test_a_prompt_that_does_not_fit(prompts: list[Any], sentence: str) -> None:
    """Each is refused with a sentence that names the prompt, before anything is sent."""
    with pytest.raises(dls.SegmentError, match=sentence):
        check(prompts, SHAPE)


def test_prompts_that_fit() -> None:
    """Corners of the volume, and a lasso on a slice across any axis."""
    across = [drawing((1, 1, 1), (1, 2, 3)), drawing((0, 2, 0), (3, 2, 5)), drawing((0, 0, 4), (1, 4, 4))]
    corners = [dls.Point(0, 0, 0), dls.Point(3, 4, 5, False), dls.Box((0, 0, 0), (3, 4, 5))]
    check([*corners, *map(dls.Lasso, across), dls.Scribble(drawing((1, 1, 1)))], SHAPE)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_closed_curve_is_filled(axis: int) -> None:
    """What a curve encloses is added, on a slice across each axis; also where the curve only closes over corners."""
    ring = np.array([[0, 1, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 1, 0], [0, 1, 1, 0, 0]], bool)
    drawn = np.zeros((6, 4, 5), bool)
    drawn[2] = ring
    filled = ring.copy()
    filled[1:3, 1:3] = True
    result = np.moveaxis(fill_lasso(np.moveaxis(drawn, 0, axis)), axis, 0)
    np.testing.assert_array_equal(result[2], filled)
    assert result.sum() == filled.sum() and drawn.sum() == ring.sum()


def test_an_open_curve_and_a_filled_one_stay() -> None:
    """A spiral with a way out encloses nothing, and a filled outline is its own inside."""
    spiral = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], bool)
    for plane in (spiral, np.ones((5, 5), bool)):
        np.testing.assert_array_equal(fill_lasso(plane[None]), plane[None])
