"""Small volumes of images and masks, and the three slices that are drawn of them."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dls.errors import RequestError
from dls.server.pictures import drawing, samples
from dls.server.pictures.drawing import TILE, Small
from dls.server.pictures.samples import GREYS, LONGEST
from dls.server.volume import Geometry, Mask

LPS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def stored(path: Path, values: npt.NDArray[np.generic]) -> Path:
    path.write_bytes(gzip.compress(np.ascontiguousarray(values).tobytes(), 1))
    return path


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (200, 10, 301), (7, LONGEST + 1, 2)])
def test_a_small_image(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """It has at most LONGEST voxels along an axis, each the mean of a block of one plane; black and white are real."""
    z, y, x = np.indices(shape)
    values = (z + 2 * y + 3 * x).astype("<f4")
    small = samples.read_image(stored(tmp_path / "i.gz", values), shape)
    steps = [-(-side // LONGEST) for side in shape]
    assert small.shape == tuple(-(-side // step) for side, step in zip(shape, steps, strict=True))
    if np.prod(shape) > 1:
        assert small.min() == 0 and small.max() == GREYS and small[-1, -1, -1] > small[0, 0, 0]


def test_an_image_of_odd_voxels(tmp_path: Path) -> None:
    """NaN and infinity are black, and the brightest voxels of few do not make the others dark."""
    values = np.random.default_rng(0).normal(100, 10, (20, 30, 40)).astype("<f4")
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    values[5, 5, 5] = 1e30
    small = samples.read_image(stored(tmp_path / "i.gz", values), values.shape)
    assert small[0, 0, 0] == small[0, 0, 1] == 0
    assert 40 < float(np.median(small)) < 90


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_an_image_of_one_value(tmp_path: Path, value: float) -> None:
    """It is black, and no error."""
    values = np.full((4, 5, 6), value, "<f4")
    assert not samples.read_image(stored(tmp_path / "i.gz", values), values.shape).any()


def test_a_single_voxel_of_a_mask_is_seen(tmp_path: Path) -> None:
    """Wherever it lies in a large volume, one voxel of the small mask is set, and the right one."""
    mask = np.zeros((290, 20, 500), np.uint8)
    mask[289, 13, 401] = 1
    small = samples.read_mask(stored(tmp_path / "m.gz", mask), mask.shape)
    assert np.argwhere(small).tolist() == [[289 // 3, 13, 401 // 4]]


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"x" + data, lambda data: data + data])
def test_a_damaged_file_gives_no_picture(tmp_path: Path, damage: object) -> None:
    """It is refused with an error that the gallery knows, as a file of another length is."""
    path = stored(tmp_path / "i.gz", np.zeros((4, 5, 6), "<f4"))
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises((RequestError, OSError)):
        samples.read_image(path, (4, 5, 6))
    stored(path, np.zeros((4, 5, 5), "<f4"))
    with pytest.raises((RequestError, OSError)):
        samples.read_image(path, (4, 5, 6))


def test_the_axes_of_the_patient() -> None:
    """Whatever the directions of an image are, the small volume runs to the head, the back and the left."""
    rng = np.random.default_rng(1)
    patient = rng.integers(0, 100, (4, 5, 6)).astype(np.uint8)  # superior, posterior, left
    spacing = (3.0, 2.0, 1.0)
    # x runs to the foot, y to the right, z to the front, each a little tilted.
    direction = (0.05, -1.0, 0.0, 0.0, 0.02, -1.0, -1.0, 0.0, 0.1)
    stored_as = np.ascontiguousarray(patient[::-1, ::-1, ::-1].transpose(1, 2, 0))  # (z, y, x) = (-P, -L, -S)
    geometry = Geometry(stored_as.shape, spacing=(spacing[1], spacing[2], spacing[0]), direction=direction)
    turned = drawing.orient(stored_as, geometry)
    np.testing.assert_array_equal(turned.values, patient)
    assert turned.millimetres == (12.0, 10.0, 6.0)
    plain = drawing.orient(patient, Geometry(patient.shape, spacing=spacing, direction=LPS))
    np.testing.assert_array_equal(plain.values, patient)


def opened(png: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        image.verify()
    with Image.open(io.BytesIO(png)) as image:
        assert image.size == (3 * TILE, TILE)
        return np.array(image.convert("RGB"))


def colored(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return pixels[..., 0].astype(int) - pixels[..., 2] > 20


def test_the_picture_shows_the_mask_where_it_is_largest() -> None:
    """Three slices side by side, through the slices in which the mask is largest, as looked at in a clinic."""
    values = np.full((40, 50, 60), 60, np.uint8)
    mask = np.zeros_like(values)
    mask[30:36, 5:10, 40:55] = 1  # near the head, in front, to the left
    pixels = opened(drawing.draw(Small(values, (40, 50, 60)), Small(mask, (40, 50, 60))))
    tiles = [colored(pixels[:, n * TILE : (n + 1) * TILE]) for n in range(3)]
    centers = [np.argwhere(tile).mean(axis=0) / TILE - 0.5 for tile in tiles]
    axial, coronal, sagittal = centers
    assert axial[0] < -0.2 and axial[1] > 0.2  # in front is above, the patient's left is right
    assert coronal[0] < -0.15 and coronal[1] > 0.2  # the head is above
    assert sagittal[0] < -0.15 and sagittal[1] < -0.2  # in front is left
    assert not colored(opened(drawing.draw(Small(values, (40, 50, 60)), None))).any()
    empty: Mask = np.zeros_like(values)
    assert not colored(opened(drawing.draw(Small(values, (40, 50, 60)), Small(empty, (40, 50, 60))))).any()


def test_thick_slices_keep_their_proportions() -> None:
    """A picture of few thick slices has the proportions of the patient."""
    values = np.full((10, 100, 100), GREYS, np.uint8)
    pixels = opened(drawing.draw(Small(values, (50.0, 100.0, 100.0)), None))
    lit = [np.ptp(np.argwhere(pixels[:, n * TILE : (n + 1) * TILE, 0]), axis=0) + 1 for n in range(3)]
    assert lit[0][0] == lit[0][1] == lit[1][1] == 2 * lit[1][0] == 2 * lit[2][0]
