"""Send files to a folder on the host: only the bytes that it lacks, with the checksums by which it checks them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dls.remote.host.probe import NUMBER
from dls.remote.progress import Phase, TransferMeter
from dls.remote.ssh.shell import ScriptRunner


@dataclass(frozen=True)
class SentFile:
    """One file that is sent: its name in the folder, its size and its digest."""

    name: str
    size: int
    sha256: str


class FileSource(Protocol):
    """What holds the files on this computer: a folder, or a parcel."""

    @property
    def name(self) -> str:
        """Name of what the files are together."""

    @property
    def files(self) -> Sequence[SentFile]:
        """The files, in the order in which they are sent."""

    def read(self, file: SentFile, offset: int) -> Iterator[bytes]:
        """Yield the file's bytes from the offset on."""


def checksums(files: Sequence[SentFile]) -> str:
    """Return the files' digests as `sha256sum` reads them."""
    return "\n".join(f"{file.sha256}  {file.name}" for file in files)


def read_sizes(rows: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return how many bytes of each file the host has, from the rows `size`, name and number of a script's output."""
    return {row[1]: read_size(row[2]) for row in rows if row[0] == "size" and len(row) == 3}


def read_size(text: str) -> int:
    """Return how many bytes of a file the host has; 0 for an odd answer, after which the whole file is sent."""
    return int(text) if NUMBER.fullmatch(text := text.strip()) else 0


def missing_bytes(files: Sequence[SentFile], sizes: Mapping[str, int]) -> int:
    """Return how many bytes the host lacks."""
    return sum(file.size - _held(file, sizes) for file in files)


def send_files(
    connection: ScriptRunner, source: FileSource, folder: str, sizes: Mapping[str, int], what: str, phase: Phase
) -> None:
    """Send what the host's folder lacks of each file; `sizes` are the bytes that it has.

    Raises HostError where a file can't be written, and LinkError when the link is lost.
    """
    total = sum(file.size for file in source.files)
    meter = TransferMeter(phase, what, total, total - missing_bytes(source.files, sizes))

    def pieces(file: SentFile, offset: int) -> Iterator[bytes]:
        for piece in source.read(file, offset):
            yield piece
            meter.add(len(piece))

    for file in source.files:
        held = _held(file, sizes)
        if held < file.size or not file.size:
            connection.append(f"{folder}/{file.name}", held, pieces(file, held))
    meter.show()


def _held(file: SentFile, sizes: Mapping[str, int]) -> int:
    """Return how many of the file's bytes need not be sent; a file that is longer than it should be is sent anew."""
    size = sizes.get(file.name, 0)
    return size if size <= file.size else 0
