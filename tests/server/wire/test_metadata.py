"""The metadata of an upload is parsed into a geometry."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dls.errors import BadRequest
from dls.server.wire import metadata
from tests.support.itksnap import described


def test_the_order_of_the_axes_is_reversed() -> None:
    """The protocol uses the order (x, y, z), the geometry (z, y, x)."""
    geometry = metadata.parse(described((5, 4, 3), spacing=[0.1, 0.2, 3], origin=[1, 2, 3]))
    assert geometry.shape == (5, 4, 3)
    assert geometry.spacing == (3, 0.2, 0.1)
    assert geometry.origin == (3, 2, 1)


def test_only_the_dimensions_are_needed() -> None:
    """Older clients may leave out everything else."""
    assert metadata.parse(b'{"dimensions": [3, 4, 5]}').spacing == (1, 1, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"dimensions": None},
        {"dimensions": [1, 2]},
        {"dimensions": [1, 2, -3]},
        {"dimensions": [0, 2, 3]},
        {"dimensions": [1.5, 2, 3]},
        {"dimensions": [True, 2, 3]},
        {"dimensions": ["1", 2, 3]},
        {"dimensions": [10**30, 2, 3]},
        {"dimensions": [70000, 1, 1]},
        {"spacing": [0, 1, 1]},
        {"spacing": [1, 1]},
        {"spacing": [1, 1, float("inf")]},
        {"spacing": [1, 1, float("nan")]},
        {"spacing": [1, 1, 10**400]},
        {"direction": "x"},
        {"origin": [None, 0, 0]},
        {"components_per_pixel": 0},
        {"components_per_pixel": "1"},
        {"component_type": "uint8"},
    ],
)
def test_values_that_make_no_sense_are_refused(changes: dict[str, Any]) -> None:
    """Each is refused with a sentence that says what is wrong."""
    with pytest.raises(BadRequest) as caught:
        metadata.parse(described((2, 2, 2), **changes))
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 50000, json.dumps("x").encode()])
def test_anything_but_a_json_object_is_refused(text: bytes) -> None:
    """Text that is not a JSON object is refused, deeply nested lists too."""
    with pytest.raises(BadRequest):
        metadata.parse(text)
