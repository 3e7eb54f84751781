"""Prompts as programs write them: voxel indices in the axis order (z, y, x) of a numpy array, counted from 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from dls.errors import SegmentError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Volume: TypeAlias = npt.NDArray[Any]
    """An array of numbers of the shape (z, y, x)."""
    Mask: TypeAlias = npt.NDArray[np.uint8]
    """An array of the shape (z, y, x) with the values 0 and 1."""

Voxel = tuple[int, int, int]
"""Indices (z, y, x) of a voxel."""


class Prompt:
    """What a segmentation is made from: a Point, a Scribble, a Lasso or a Box."""


@dataclass(frozen=True)
class Point(Prompt):
    """A click on the voxel [z, y, x] of the volume: `foreground` is true on the object and false beside it."""

    z: int
    y: int
    x: int
    foreground: bool = True


@dataclass(frozen=True, eq=False)
class Scribble(Prompt):
    """A stroke: `voxels` is an array of the volume's shape (z, y, x) that is not zero where something was drawn."""

    voxels: npt.NDArray[Any]
    foreground: bool = True


@dataclass(frozen=True, eq=False)
class Lasso(Prompt):
    """An outline on one slice: `voxels` is an array of the volume's shape (z, y, x) with a closed curve, or its inside.

    A closed curve is filled before it is sent, as ITK-SNAP does.
    """

    voxels: npt.NDArray[Any]
    foreground: bool = True


@dataclass(frozen=True)
class Box(Prompt):
    """A box of voxels between two corners (z, y, x), both of which belong to it.

    The official model of nnInteractive takes flat boxes: equal corners on one axis. The region engine takes none.
    """

    low: Voxel
    high: Voxel
    foreground: bool = True


def check(prompts: Sequence[Prompt], shape: Voxel) -> None:
    """Raise SegmentError unless there are prompts and each fits a volume of that shape."""
    if not prompts:
        raise SegmentError("There is no prompt.", "Give one point at least.")
    for number, prompt in enumerate(prompts, 1):
        check_prompt(prompt, shape, f"Prompt {number}")


def check_prompt(prompt: Prompt, shape: Voxel, name: str) -> None:
    """Raise SegmentError, in which the prompt has that name, unless it fits a volume of that shape."""
    if isinstance(prompt, Point):
        _check_inside((prompt.z, prompt.y, prompt.x), shape, name)
    elif isinstance(prompt, Box):
        _check_inside(prompt.low, shape, name)
        _check_inside(prompt.high, shape, name)
    elif isinstance(prompt, Scribble | Lasso):
        _check_drawing(prompt, shape, name)
    else:
        raise SegmentError(f"{name} is a {type(prompt).__name__}.", "Use Point, Scribble, Lasso or Box of dls.")


def _check_inside(voxel: Voxel, shape: Voxel, name: str) -> None:
    if len(voxel) != 3 or not all(0 <= at < side for at, side in zip(voxel, shape, strict=True)):
        ranges = ", ".join(f"{axis} from 0 to {side - 1}" for axis, side in zip("zyx", shape, strict=True))
        raise SegmentError(f"{name} lies outside the volume: {tuple(voxel)}.", f"The volume has {ranges}.")


def _check_drawing(prompt: Scribble | Lasso, shape: Voxel, name: str) -> None:
    if tuple(prompt.voxels.shape) != shape:
        raise SegmentError(f"{name} has the shape {tuple(prompt.voxels.shape)}, the volume {shape}.")
    drawn = prompt.voxels.astype(bool)
    if not drawn.any():
        raise SegmentError(f"{name} is empty: nothing is drawn.")
    if isinstance(prompt, Lasso) and flat_axis(drawn) is None:
        raise SegmentError(f"{name} is drawn on several slices.", "A lasso lies on one slice.")


def flat_axis(drawn: npt.NDArray[Any]) -> int | None:
    """Return the axis along which a drawing is one voxel thick, the first of several; None where there is none."""
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        if int(drawn.any(axis=others).sum()) == 1:
            return axis
    return None


def fill_lasso(drawn: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the drawing on one slice together with what it encloses there."""
    import numpy as np

    axis = flat_axis(drawn)
    assert axis is not None, "check() was not called"
    others = tuple(other for other in range(3) if other != axis)
    at = int(np.flatnonzero(drawn.any(axis=others))[0])
    filled = drawn.copy()
    plane = np.moveaxis(filled, axis, 0)[at]
    plane |= _enclosed(plane)
    return filled


def _enclosed(plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the pixels that no way over undrawn neighbours (up, down, left, right) leads out from."""
    import numpy as np

    free = np.pad(~plane, 1, constant_values=True)
    outside = np.zeros_like(free)
    outside[[0, -1]] = outside[:, [0, -1]] = True
    reached = 0
    while (count := int(outside.sum())) != reached:
        reached = count
        for to, come in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            outside[to] |= outside[come] & free[to]
            outside[come] |= outside[to] & free[come]
    enclosed: npt.NDArray[Any] = ~outside[1:-1, 1:-1] & ~plane
    return enclosed
