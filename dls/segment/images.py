"""Image files: read and written by SimpleITK, the only module here that uses it."""

from __future__ import annotations

import contextlib
import locale
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dls.errors import HostError, SegmentError
from dls.extras import install_hint
from dls.segment.grid import Grid

MASK_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings of files that a mask is written to: formats of one file, which keep the geometry."""
READ_ENDINGS = (*MASK_ENDINGS, ".nhdr", ".mhd", ".dcm")
COMPRESSED = (".nii.gz", ".nrrd", ".mha")


def load_simpleitk() -> Any:
    """Import SimpleITK, and keep it from writing names of files to the terminal. Raises HostError."""
    try:
        import SimpleITK as sitk
    except ImportError as error:
        raise HostError(
            "Image files are read by SimpleITK, which is not installed here.", install_hint("segment")
        ) from error
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return sitk


@dataclass(frozen=True)
class Image:
    """An image in memory: its voxels, shape (z, y, x), and its grid."""

    voxels: npt.NDArray[Any]
    grid: Grid


def read_grid(path: Path) -> Grid | None:
    """Return the grid that the head of a file says, without its voxels; None for a folder, which has to be read.

    Raises SegmentError for a file that is no image, or an image of more axes or values than one can segment.
    """
    if path.is_dir():
        return None
    sitk = load_simpleitk()
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with _reading(path):
        reader.ReadImageInformation()
    return _check(reader, reader.GetDimension(), path)


def read(path: Path, series: str = "") -> Image:
    """Read an image file, or the DICOM series in a folder; raises SegmentError."""
    sitk = load_simpleitk()
    with _reading(path):
        image = _read_series(sitk, path, series) if path.is_dir() else sitk.ReadImage(str(path))
    grid = _check(image, image.GetDimension(), path)
    return Image(sitk.GetArrayFromImage(image).reshape(grid.shape), grid)


def _read_series(sitk: Any, folder: Path, series: str) -> Any:
    found = list(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))
    if not found:
        raise SegmentError(f"There is no DICOM series in the folder {folder}.")
    if series and series not in found:
        raise SegmentError(f"The folder {folder} has no series {series}.", f"It has: {', '.join(found)}.")
    if not series and len(found) > 1:
        raise SegmentError(
            f"The folder {folder} has {len(found)} DICOM series.", f"Name one with --series: {', '.join(found)}"
        )
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series or found[0])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    return reader.Execute()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what is raised while a file is read into a SegmentError."""
    if not path.exists():
        raise SegmentError(f"There is no image {path}.")
    try:
        with keeping_locale():
            yield
    except MemoryError as error:
        raise SegmentError(f"The image {path} does not fit into this computer's memory.") from error
    except (RuntimeError, OSError, ValueError) as error:
        reason = _last_line(str(error))
        hint = f"It can be {', '.join(READ_ENDINGS)}, or a folder with a DICOM series."
        raise SegmentError(f"The image {path} can't be read{reason}.", hint) from error


@contextlib.contextmanager
def keeping_locale() -> Iterator[None]:
    """Restore the locale at the end: ITK's DICOM reader sets it to "C", and Python reads and writes text by it."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, before)


def _last_line(text: str) -> str:
    """Return what ITK says at the end of its message, in brackets; nothing where that names its own source only."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1].rstrip(".") if lines else ""
    return f" ({last})" if last and "sitk::ERROR" not in last else ""


def _check(image: Any, dimension: int, path: Path) -> Grid:
    """Return the grid of an image; raises SegmentError for one that can't be segmented."""
    size = tuple(int(side) for side in image.GetSize())
    if dimension not in (2, 3):
        raise SegmentError(
            f"The image {path} has {dimension} axes ({' x '.join(map(str, size))}).",
            "Save one time point or channel of it as an image of three axes.",
        )
    name = str(load_simpleitk().GetPixelIDValueAsString(image.GetPixelID())).lower()
    if "vector" in name or "complex" in name:
        raise SegmentError(
            f"The image {path} has several values a voxel (color, a vector or complex numbers).",
            "Save one channel of it as an image.",
        )
    return Grid(size, tuple(image.GetSpacing()), tuple(image.GetOrigin()), tuple(image.GetDirection()))


def ending(path: Path) -> str:
    """Return the ending of a mask's file name; raises SegmentError for one that no mask is written to."""
    for known in MASK_ENDINGS:
        if path.name.lower().endswith(known) and len(path.name) > len(known):
            return known
    raise SegmentError(f"A mask can't be written as {path.name}.", f"End its name in one of {', '.join(MASK_ENDINGS)}.")


def write_mask(path: Path, mask: npt.NDArray[np.uint8], grid: Grid) -> None:
    """Write a mask, shape (z, y, x), on the image's grid: under another name first, so that `path` is never half.

    Raises SegmentError where it can't be written, as on a full disk.
    """
    sitk = load_simpleitk()
    image = sitk.GetImageFromArray(mask.reshape(tuple(reversed(grid.size))))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    with replacing(path, "mask") as unfinished:
        sitk.WriteImage(image, str(unfinished), ending(path) in COMPRESSED)
        # Not every writer says that the disk is full.
        written = sitk.GetArrayFromImage(sitk.ReadImage(str(unfinished)))
        if not np.array_equal(written.reshape(mask.shape), mask):
            raise OSError("what was written is not what was to be written")


@contextlib.contextmanager
def replacing(path: Path, what: str) -> Iterator[Path]:
    """Yield a name to write to, in a folder that only its user can open, and rename it to `path` at the end.

    Raises SegmentError, and leaves `path` as it was, where that fails.
    """
    folder = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".dls-", dir=path.parent))
        yield folder / path.name
        (folder / path.name).replace(path)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        full = f" ({reason})" if reason else ""
        raise SegmentError(
            f"The {what} could not be written to {path}{full}.", "Is the disk full, or the folder closed to you?"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
