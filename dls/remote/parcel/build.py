"""Make what goes into a parcel of what was fetched: wheels of source distributions, the program of uv's wheel."""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from dls.remote.parcel.uv import FetchError, run_uv


def build_wheel(source: Path, folder: Path, *, ca_bundle: Path | None) -> Path:
    """Build the wheel of a source distribution into the folder and return its path.

    Raises FetchError, with the package's name, for one that can't be built, and for one that is not pure Python: its
    wheel would be for this computer.
    """
    with tempfile.TemporaryDirectory(prefix="dls-pack-") as place:
        arguments = ["build", "--wheel", "--quiet", "--python", sys.executable, "--out-dir", place, str(source)]
        try:
            run_uv(arguments, ca_bundle=ca_bundle)
        except FetchError as error:
            raise FetchError(
                f"There is no wheel of {source.name}, and none can be built here.", error.hint, error.detail
            ) from None
        wheels = list(Path(place).glob("*.whl"))
        if len(wheels) != 1 or not wheels[0].name.endswith("-none-any.whl"):
            raise FetchError(
                f"There is no wheel of {source.name} for this platform and Python, and it is not pure Python.",
                "Choose another --python; 3.11 and 3.12 have the most wheels.",
            )
        return Path(shutil.move(wheels[0], folder / wheels[0].name))


def extract_uv(wheel: Path, packed: Path) -> None:
    """Write the program of uv's wheel to a file, packed by gzip; equal wheels give equal bytes."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        packed.write_bytes(gzip.compress(archive.read(name), 6, mtime=0))


def installed_size(wheel: Path) -> int:
    """Return the bytes of a wheel's files; raises FetchError for a file that is no wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise FetchError(f"{wheel.name} is no wheel.", "Does a mirror replace packages?") from None
