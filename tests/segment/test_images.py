"""Image files: their geometry is kept in every format, and what can't be segmented is refused with a sentence."""

from __future__ import annotations

import locale
import stat
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from dls.errors import SegmentError
from dls.segment import images
from dls.segment.grid import LPS, RAS, VOXEL, Grid
from tests.support.disks import small_disk
from tests.support.image_files import (
    ORIGIN,
    SHAPE,
    SPACING,
    TRUTH,
    VOXELS,
    assert_same_grid,
    load,
    on_grid,
    rotation,
    save,
    save_series,
    voxels_of,
)

MASK = TRUTH.astype(np.uint8)
GRID = Grid((36, 40, 24), SPACING, ORIGIN, tuple(rotation().ravel()))


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz", "image.nrrd", "image.mha", "image.mhd", "image.nhdr"])
@pytest.mark.parametrize("mask", ["mask.nii.gz", "mask.nii", "mask.nrrd", "mask.mha"])
def test_the_geometry_is_kept(tmp_path: Path, name: str, mask: str) -> None:
    """A mask of an oblique image has its size, spacing, origin and direction, as precisely as its format has them."""
    path = save(tmp_path / name)
    image = images.read(path)
    np.testing.assert_array_equal(image.voxels, VOXELS)
    assert image.grid == images.read_grid(path)
    images.write_mask(tmp_path / mask, MASK, image.grid)
    np.testing.assert_array_equal(voxels_of(tmp_path / mask), MASK)
    assert load(tmp_path / mask).GetPixelIDTypeAsString() == "8-bit unsigned integer"
    # MetaImage has doubles, NRRD spacing and direction in one vector, and NIfTI single precision.
    tolerance = 0.0 if mask.endswith(".mha") else 1e-14 if mask.endswith(".nrrd") else 1e-5
    assert_same_grid(load(tmp_path / mask), load(path), tolerance)
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith((".", "mask"))) == [mask]


def test_a_dicom_series(tmp_path: Path) -> None:
    """The slices of a folder are put in the order of their places, whatever their names."""
    before = locale.setlocale(locale.LC_ALL)
    image = images.read(save_series(tmp_path / "ct"))
    assert locale.setlocale(locale.LC_ALL) == before  # ITK sets it to "C", in which no text of others can be read
    np.testing.assert_array_equal(image.voxels, VOXELS)
    assert not image.grid.differs(GRID)
    images.write_mask(tmp_path / "mask.nrrd", MASK, image.grid)
    assert_same_grid(load(tmp_path / "mask.nrrd"), on_grid(VOXELS), 1e-6)


def test_a_folder_with_several_series(tmp_path: Path) -> None:
    """They are listed, and one can be named."""
    folder = save_series(save_series(tmp_path / "ct"), "1.2.826.0.1.3680043.2.1125.2")
    with pytest.raises(SegmentError, match="2 DICOM series") as caught:
        images.read(folder)
    assert "--series" in caught.value.hint and "1.2.826.0.1.3680043.2.1125.2" in caught.value.hint
    assert images.read(folder, "1.2.826.0.1.3680043.2.1125.2").grid.size == GRID.size
    with pytest.raises(SegmentError, match=r"no series 1\.2\.3"):
        images.read(folder, "1.2.3")
    with pytest.raises(SegmentError, match="no DICOM series"):
        images.read(tmp_path)


def test_a_slice(tmp_path: Path) -> None:
    """An image of two axes is a volume of one slice, and its mask has two axes again."""
    sitk.WriteImage(on_grid(VOXELS)[:, :, 11], str(tmp_path / "slice.nrrd"))
    image = images.read(tmp_path / "slice.nrrd")
    assert image.voxels.shape == image.grid.shape == (1, 40, 36)
    images.write_mask(tmp_path / "mask.mha", MASK[11:12], image.grid)
    assert_same_grid(load(tmp_path / "mask.mha"), load(tmp_path / "slice.nrrd"))
    assert image.grid.to_voxel((15, 22), VOXEL, "The point") == (0, 22, 15)
    with pytest.raises(SegmentError, match="has 3 coordinates; the image has 2 axes"):
        image.grid.to_voxel((15, 22, 11), VOXEL, "The point")


def write_odd(folder: Path, kind: str) -> Path:
    image = on_grid(VOXELS)
    odd = {
        "four": lambda: sitk.JoinSeries([image, image]),
        "color": lambda: sitk.Compose(sitk.Cast(image, sitk.sitkUInt8), *2 * [sitk.Cast(image, sitk.sitkUInt8)]),
        "complex": lambda: sitk.RealAndImaginaryToComplex(
            sitk.Cast(image, sitk.sitkFloat32), sitk.Cast(image, sitk.sitkFloat32)
        ),
    }
    sitk.WriteImage(odd[kind](), str(folder / "image.mha" if kind == "color" else folder / "image.nrrd"))
    return folder / ("image.mha" if kind == "color" else "image.nrrd")


@pytest.mark.parametrize(
    ("kind", "what"), [("four", "4 axes"), ("color", "several values"), ("complex", "several values")]
)
def test_what_can_not_be_segmented(tmp_path: Path, kind: str, what: str) -> None:
    """Images of four axes, in color and of complex numbers are refused by their head, with what to do."""
    path = write_odd(tmp_path, kind)
    for read in (images.read_grid, images.read):
        with pytest.raises(SegmentError, match=what) as caught:
            read(path)
        assert "Save one" in caught.value.hint


def test_what_is_no_image(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A missing file, one of another kind and one cut short are refused; ITK itself writes nothing to the terminal."""
    with pytest.raises(SegmentError, match="There is no image"):
        images.read(tmp_path / "image.nii.gz")
    (tmp_path / "notes.nii.gz").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    whole = save(tmp_path / "whole.nrrd").read_bytes()
    (tmp_path / "cut.nrrd").write_bytes(whole[: len(whole) // 2])
    for name in ("notes.nii.gz", "notes.txt", "cut.nrrd"):
        with pytest.raises(SegmentError, match="can't be read") as caught:
            images.read(tmp_path / name)
        assert "\n" not in caught.value.message and ".nii.gz" in caught.value.hint
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "mask.nrrd", "mask.mha"])
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    """A mask for which the disk has no room is refused; the one that was there stays, and nothing else does."""
    noise = np.random.default_rng(0).integers(0, 2, (100, 160, 160)).astype(np.uint8)
    grid = Grid((160, 160, 100), SPACING, ORIGIN, GRID.direction)
    with small_disk(tmp_path / "small", "200k") as folder:
        (folder / name).write_bytes(b"the mask before")
        with pytest.raises(SegmentError, match=f"could not be written to .*{name}") as caught:
            images.write_mask(folder / name, noise, grid)
        assert "full" in caught.value.hint
        assert (folder / name).read_bytes() == b"the mask before"
        assert [path.name for path in folder.iterdir()] == [name]


def test_a_mask_is_written_where_only_its_user_looks(tmp_path: Path) -> None:
    """It appears under its name when it is complete; until then it lies in a folder of mode 0700."""
    with images.replacing(tmp_path / "new" / "mask.nii", "mask") as unfinished:
        assert stat.S_IMODE(unfinished.parent.stat().st_mode) == 0o700
        unfinished.write_bytes(b"mask")
        assert not (tmp_path / "new" / "mask.nii").exists()
    assert (tmp_path / "new" / "mask.nii").read_bytes() == b"mask"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mask.nii"]


@pytest.mark.parametrize("name", ["mask", "mask.png", "mask.mhd", ".nii.gz", "mask.nii.gz.txt"])
def test_names_that_no_mask_is_written_to(name: str) -> None:
    """Formats of two files and names without an ending are refused with the endings that there are."""
    with pytest.raises(SegmentError, match="can't be written as") as caught:
        images.ending(Path(name))
    assert ".nii.gz, .nii, .nrrd, .mha" in caught.value.hint


def test_coordinates_in_millimetres() -> None:
    """LPS is what ITK computes for a voxel, RAS has the first two signs turned, and the nearest voxel is taken."""
    image = on_grid(VOXELS)
    for z, y, x in ((0, 0, 0), (11, 22, 15), (23, 39, 35)):
        place = np.array(image.TransformContinuousIndexToPhysicalPoint((x + 0.4, y - 0.4, z + 0.3)))
        assert GRID.to_voxel(tuple(place), LPS, "") == (z, y, x)
        assert GRID.to_voxel(tuple(place * (-1, -1, 1)), RAS, "") == (z, y, x)
    assert GRID.shape == SHAPE


@pytest.mark.parametrize("system", [VOXEL, LPS, RAS])
def test_a_coordinate_outside(system: str) -> None:
    """It is refused, with the range of the image in the same coordinates."""
    with pytest.raises(SegmentError, match="The point lies outside the image") as caught:
        GRID.to_voxel((1000, 0, 0), system, "The point")
    corners = np.array(
        [on_grid(VOXELS).TransformIndexToPhysicalPoint((x, y, z)) for x in (0, 35) for y in (0, 39) for z in (0, 23)]
    )
    low = {VOXEL: 0.0, LPS: corners[:, 0].min(), RAS: -corners[:, 0].max()}[system]
    assert f"x from {low:.6g} to" in caught.value.hint


def test_another_grid() -> None:
    """Grids that differ by less than a thousandth of a voxel are the same; the difference of others is named."""
    assert not GRID.differs(Grid(GRID.size, SPACING, tuple(one + 1e-4 for one in ORIGIN), GRID.direction))
    assert "size 1 x 2 x 3" in GRID.differs(Grid((1, 2, 3), SPACING, ORIGIN, GRID.direction))
    assert "spacing" in GRID.differs(Grid(GRID.size, (1.0, 0.8, 2.5), ORIGIN, GRID.direction))
    assert "origin" in GRID.differs(Grid(GRID.size, SPACING, (0.0, 0.0, 0.0), GRID.direction))
    assert "direction" in GRID.differs(Grid(GRID.size, SPACING, ORIGIN, (1.0, 0, 0, 0, 1, 0, 0, 0, 1)))
