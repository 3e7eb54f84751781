"""Boxes: with them, an image's prompts go in nnInteractive's own protocol, to the real library with the tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dls
from dls.segment.http import Address
from dls.segment.lease import LeaseClient, pack, unpack
from dls.segment.segmenter import Segmenter
from dls.server.engines.nninteractive import NnInteractiveEngine
from dls.server.engines.seeding import seed_prediction
from tests.support.command_line import run_dls
from tests.support.http_server import LiveServer, serving
from tests.support.nninteractive import IGNORED_WARNINGS, MODEL
from tests.support.official_client import CENTER, IMAGE, OPTIONS, TRUTH, Step, drawn, library
from tests.support.synthetic import dice

pytestmark = [*IGNORED_WARNINGS, pytest.mark.slow]
Z, Y, X = CENTER
BOX = dls.Box((Z, Y - 12, X - 12), (Z, Y + 11, X + 11))


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """A server with the nnInteractive engine and the tiny model."""
    with serving(NnInteractiveEngine(OPTIONS)) as live:
        yield live


def test_a_box_is_what_the_library_makes_of_it(server: LiveServer) -> None:
    """Box, point, scribble and lasso in one list give, voxel for voxel, the mask of the library's own methods."""
    prompts = [
        BOX,
        dls.Point(4, 4, 4, False),
        dls.Scribble(drawn("scribble")),
        dls.Lasso(drawn("lasso")),
    ]
    with Segmenter(Address(server.port)) as segmenter:
        mask = segmenter.segment(IMAGE, prompts)
        again = segmenter.segment(IMAGE, prompts)
        only = segmenter.segment(IMAGE, [dls.Point(*CENTER)])
        assert isinstance(segmenter._client, LeaseClient)  # the image is there: it is not sent once more for a point
    steps: list[Step] = [
        lambda session: session.add_bbox_interaction([[Z, Z + 1], [Y - 12, Y + 12], [X - 12, X + 12]], True),
        lambda session: session.add_point_interaction([4, 4, 4], False),
        lambda session: session.add_scribble_interaction(drawn("scribble"), True),
        lambda session: session.add_lasso_interaction(drawn("lasso"), True),
    ]
    with library() as session:
        for step in steps:
            seed_prediction()
            step(session)
        expected = np.array(session.target_buffer)
    assert dice(mask, TRUTH) > 0.7
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(again, mask)
    assert only[CENTER] == 1


def test_the_same_without_boxes(server: LiveServer) -> None:
    """Both protocols give one mask for the same point."""
    prompts: list[dls.Point] = [dls.Point(*CENTER), dls.Point(4, 4, 4, False)]
    with Segmenter(Address(server.port)) as segmenter:
        snap = segmenter.segment(IMAGE, prompts)
        segmenter.segment(IMAGE, [BOX])
        lease = segmenter.segment(IMAGE, prompts)
    np.testing.assert_array_equal(snap, lease)


def test_the_command_with_a_box(server: LiveServer, tmp_path: Path) -> None:
    """`--box` has corners in the order x, y, z, which belong to it; a slice can be segmented too."""
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(IMAGE), str(tmp_path / "image.nrrd"))
    corners = f"{X + 11},{Y - 12},{Z},{X - 12},{Y + 11},{Z}"
    words = ["--box", corners, "-o", str(tmp_path / "m.nrrd"), "--server", f"localhost:{server.port}"]
    done = run_dls("segment", str(tmp_path / "image.nrrd"), *words)
    assert done.returncode == 0, done.stderr
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nrrd")))
    with Segmenter(Address(server.port)) as segmenter:
        np.testing.assert_array_equal(mask, segmenter.segment(IMAGE, [BOX]))


def test_a_server_of_ones_own_with_the_model(tmp_path: Path) -> None:
    """Without --server, the engine's options are those of `dls serve`, and the engine is said to be on the CPU."""
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(IMAGE), str(tmp_path / "image.nrrd"))
    engine = ["--engine", "nninteractive", "--device", "cpu", "--model", str(MODEL), "--no-network"]
    flat = ["--box", f"{X - 12},{Y - 12},{Z},{X + 11},{Y + 11},{Z}", "-o", str(tmp_path / "m.nrrd")]
    done = run_dls("segment", str(tmp_path / "image.nrrd"), *flat, *engine)
    assert done.returncode == 0 and "(cpu)" in done.stderr, done.stderr
    assert dice(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "m.nrrd"))), TRUTH) > 0.5


def test_a_box_that_the_model_does_not_take(server: LiveServer) -> None:
    """A deep box is refused in the library's words, with what to give instead."""
    with (
        Segmenter(Address(server.port)) as segmenter,
        pytest.raises(dls.SegmentError, match="3D bounding box") as caught,
    ):
        segmenter.segment(IMAGE, [dls.Box((Z, Y, X), (Z + 5, Y + 5, X + 5))])
    assert "flat boxes" in caught.value.hint


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16, bool])
def test_arrays_are_packed_as_the_library_packs_them(dtype: type) -> None:
    """What is packed here is unpacked by the library, and the other way round."""
    from nnInteractive.inference.remote.serialization import pack_array, unpack_array

    array: np.ndarray = (np.arange(7 * 5 * 3).reshape(7, 5, 3) % 2).astype(dtype)
    np.testing.assert_array_equal(unpack_array(pack(array)), array)
    ours = unpack(pack_array(array))
    np.testing.assert_array_equal(ours, array)
    assert ours.dtype == array.dtype


@pytest.mark.parametrize("data", [b"", b"NNIA", b"nothing at all", b"NNIA\x01\x01\x01\x05uint8" + 12 * b"\x00"])
def test_what_is_no_packed_array(data: bytes) -> None:
    """It is refused, and no memory is taken for it."""
    import struct

    with pytest.raises((ValueError, struct.error)):
        unpack(data)
        raise ValueError("an empty array")
