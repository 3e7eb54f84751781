"""A parcel as a file: an uncompressed tar archive whose first member, parcel.json, lists the others in their order."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dls.errors import TargetError
from dls.remote.host.send_files import SentFile
from dls.remote.parcel.format import AGAIN, MANIFEST, MAX_MANIFEST, MODEL, Manifest, PackedFile, damaged

CHUNK_BYTES = 1 << 20
"""Number of bytes that are read at a time."""


@dataclass(frozen=True)
class Parcel:
    """A parcel on this computer, whose list of files has been read and checked."""

    path: Path
    manifest: Manifest
    offsets: dict[str, int]
    """Where the content of each file begins."""

    @classmethod
    def open(cls, path: Path) -> Parcel:
        """Read and check the parcel's list of files; raises TargetError for what is no whole parcel."""
        try:
            with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
                manifest = _read_manifest(archive)
                offsets = _find_files(archive, manifest)
        except tarfile.TarError:
            raise damaged("it is no whole tar archive") from None
        except OSError as error:
            raise TargetError(f"The parcel {path} can't be read: {error.strerror or error}.", AGAIN) from None
        return cls(path, manifest, offsets)

    def read(self, file: SentFile, offset: int = 0) -> Iterator[bytes]:
        """Yield the file's bytes from the offset on; raises TargetError where the file is not the one that was packed.

        Those before it are read too, for the digest.
        """
        digest = hashlib.sha256()
        place = 0
        for chunk in self._read_all(file):
            digest.update(chunk)
            if place + len(chunk) > offset:
                yield chunk[max(0, offset - place) :]
            place += len(chunk)
        if digest.hexdigest() != file.sha256:
            raise damaged(f"{file.name} is not the file that was packed")

    def _read_all(self, file: SentFile) -> Iterator[bytes]:
        left = file.size
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offsets[file.name])
                while left and (chunk := stream.read(min(CHUNK_BYTES, left))):
                    yield chunk
                    left -= len(chunk)
        except OSError as error:
            raise TargetError(f"The parcel {self.path} can't be read: {error.strerror or error}.", AGAIN) from None


@dataclass(frozen=True)
class PackedModel:
    """The weights of a parcel, as `dls.remote.host.push_model` sends them."""

    parcel: Parcel

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.parcel.manifest.model

    @property
    def files(self) -> tuple[PackedFile, ...]:
        """The model's files, smallest first, with their names in its folder."""
        packed = self.parcel.manifest.files_in(MODEL)
        named = [PackedFile(file.base.partition("/")[2], file.size, file.sha256) for file in packed]
        return tuple(sorted(named, key=lambda file: file.size))

    def read(self, file: SentFile, offset: int) -> Iterator[bytes]:
        """Yield the file's bytes from the offset on."""
        return self.parcel.read(PackedFile(f"{MODEL}/{self.name}/{file.name}", file.size, file.sha256), offset)


def find_model(parcel: Parcel) -> PackedModel:
    """Return the weights in the parcel; raises TargetError for a parcel without."""
    if not parcel.manifest.model:
        raise TargetError(f"The parcel {parcel.path} holds no weights.", "Make it without --no-weights.")
    return PackedModel(parcel)


def _read_manifest(archive: tarfile.TarFile) -> Manifest:
    first = archive.next()
    if first is None or first.name != MANIFEST or first.type != tarfile.REGTYPE or first.size > MAX_MANIFEST:
        raise damaged(f"it does not begin with {MANIFEST}")
    stream = archive.extractfile(first)
    data = stream.read() if stream else b""
    try:
        return Manifest.parse(data.decode())
    except UnicodeDecodeError:
        raise damaged(f"its {MANIFEST} can't be read") from None


def _find_files(archive: tarfile.TarFile, manifest: Manifest) -> dict[str, int]:
    """Return where each file begins; raises TargetError where the archive does not hold the files, in their order."""
    offsets = {}
    for file in manifest.files:
        member = archive.next()
        if member is None:
            raise damaged(f"it ends before {file.name}")
        if (member.name, member.size, member.type) != (file.name, file.size, tarfile.REGTYPE):
            raise damaged(f"where {file.name} should be is something else")
        offsets[file.name] = member.offset_data
    if archive.next() is not None:
        raise damaged("it holds more than it lists")
    return offsets


def write(
    path: Path, manifest: Manifest, locate: Callable[[PackedFile], Path], show: Callable[[int], None] = lambda _: None
) -> None:
    """Write the parcel beside its place and move it there when it is complete; equal content gives equal bytes.

    `locate` says where a file is, and `show` is called with the number of bytes of each piece that was written.
    """
    part = path.with_name(path.name + ".part")
    try:
        with (
            part.open("wb") as stream,
            tarfile.open(fileobj=stream, mode="w:", format=tarfile.GNU_FORMAT) as archive,
        ):
            text = manifest.to_json().encode()
            archive.addfile(_member(MANIFEST, len(text)), io.BytesIO(text))
            for file in manifest.files:
                with locate(file).open("rb") as content:
                    archive.addfile(_member(file.name, file.size), _Shown(content, show))
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise TargetError(
            f"The parcel {path} can't be written: {error.strerror or error}.", "Is the disk full or read-only?"
        ) from None


def _member(name: str, size: int) -> tarfile.TarInfo:
    # Nobody's name and no time: what is in the parcel alone decides its bytes.
    member = tarfile.TarInfo(name)
    member.size = size
    return member


class _Shown(io.RawIOBase):
    """A file that tells how much of it has been read."""

    def __init__(self, stream: io.BufferedReader, show: Callable[[int], None]) -> None:
        self._stream, self._show = stream, show

    def read(self, size: int = -1) -> bytes:
        """Read from the file."""
        data = self._stream.read(size)
        self._show(len(data))
        return data
