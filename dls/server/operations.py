"""The operations of nnInteractive's own protocol: the values that its codec, its sessions and the engine exchange.

"Official client" stands for a client of that protocol, as napari, 3D Slicer and MITK have them; "official session" for
a session of such a client. Arrays have the axis order in which the client sends them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shape = tuple[int, int, int]
Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""A half-open box of voxels: the first and the end on each of the three axes."""

SET_TARGET_BUFFER, SET_DO_AUTOZOOM, RESET = "set_target_buffer", "set_do_autozoom", "reset_interactions"
UNDO, PREDICT = "undo", "predict"
ADD_BBOX, ADD_POINT = "add_bbox_interaction", "add_point_interaction"
ADD_SCRIBBLE, ADD_LASSO = "add_scribble_interaction", "add_lasso_interaction"
ADD_INITIAL_SEG = "add_initial_seg_interaction"
"""The operations, named as their routes are."""

PLAIN = (SET_TARGET_BUFFER, SET_DO_AUTOZOOM, RESET)
"""The operations that are answered without a part of the buffer."""
MASKED = (ADD_SCRIBBLE, ADD_LASSO, ADD_INITIAL_SEG)
"""The operations whose body is an array; what else they say is in a header."""
PROMPTS = (PREDICT, ADD_BBOX, ADD_POINT, *MASKED)
"""The operations that need the image."""
OVERWRITING = (SET_TARGET_BUFFER, RESET, ADD_INITIAL_SEG)
"""The operations before which the client overwrites its whole buffer itself."""


@dataclass(frozen=True)
class Operation:
    """What a request asks for: the operation's name, its fields, and the array of a mask as it was received."""

    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Buffer:
    """The array that predictions are written to: its shape and the name of its type."""

    shape: Shape
    dtype: str

    @property
    def bytes(self) -> int:
        """Number of bytes of the array."""
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.dtype).itemsize

    @property
    def bounds(self) -> Bounds:
        """The box of all its voxels."""
        return to_bounds((0, side) for side in self.shape)


@dataclass(frozen=True)
class Carried:
    """What a session has besides its image and its interactions, and keeps when those are replaced or removed.

    `centers` and `zooms` belong to the prompts that wait for a prediction. `request` is the request that replaced or
    removed them.
    """

    autozoom: bool | None = None
    """Whether predictions zoom out; None for the model's default."""
    centers: tuple[tuple[int, ...], ...] = ()
    zooms: tuple[float, ...] = ()
    buffer: Buffer | None = None
    request: str = ""

    @classmethod
    def decode(cls, fields: Mapping[str, Any]) -> Carried:
        """Read what `encode` has written; raises ValueError, KeyError or TypeError."""
        buffer, autozoom = fields["buffer"], fields["autozoom"]
        return cls(
            autozoom=None if autozoom is None else bool(autozoom),
            centers=tuple(tuple(int(at) for at in center) for center in fields["centers"]),
            zooms=tuple(float(zoom) for zoom in fields["zooms"]),
            buffer=None if buffer is None else Buffer(to_shape(buffer["shape"]), np.dtype(buffer["dtype"]).name),
            request=str(fields["request"]),
        )

    def encode(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return {**vars(self), "buffer": self.buffer and vars(self.buffer)}


@dataclass(frozen=True)
class Outcome:
    """What an operation did: whether something was predicted or undone, and the box of the buffer that it changed."""

    ran: bool
    box: Bounds | None
    carried: Carried
    """What the session carries afterwards."""


def to_shape(sides: Iterable[Any]) -> Shape:
    """Return three sides as a shape; raises ValueError for another number."""
    a, b, c = (int(side) for side in sides)
    return a, b, c


def to_bounds(pairs: Iterable[Iterable[Any]]) -> Bounds:
    """Return three pairs as a box; raises ValueError for another number."""
    a, b, c = ((int(low), int(high)) for low, high in pairs)
    return a, b, c


def hull(first: Bounds | None, second: Bounds | None) -> Bounds | None:
    """Return the smallest box that contains both; None stands for an empty box."""
    if first is None or second is None:
        return first or second
    return to_bounds((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(first, second, strict=True))
