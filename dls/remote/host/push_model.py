"""Send a model over the SSH connection to a host without internet access; resumable and verified by checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dls.errors import HostError, TargetError
from dls.remote.host.scripts import render
from dls.remote.host.send_files import FileSource, SentFile, checksums, read_sizes, send_files
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection

CHUNK_BYTES = 1 << 20
"""Number of bytes that are read and sent at a time."""


@dataclass(frozen=True)
class ModelFolder:
    """A model's folder on this computer, as a source of files."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.path.name

    @cached_property
    def files(self) -> list[SentFile]:
        """Its files, smallest first, without hidden ones; raises TargetError for none."""
        found = []
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path).as_posix()
            if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
                found.append(SentFile(name, path.stat().st_size, digest_of(path)))
        if not found:
            raise TargetError(f"{self.path} holds no files.", "Name a model's folder.")
        return sorted(found, key=lambda file: file.size)

    def read(self, file: SentFile, offset: int) -> Iterator[bytes]:
        """Yield the file's bytes from the offset on."""
        with (self.path / file.name).open("rb") as stream:
            stream.seek(offset)
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def begin_script(models_path: str | None, name: str, files: Sequence[SentFile]) -> str:
    """Return the script that prints the model's place, whether it is complete, and the bytes of each file there."""
    return render(
        "begin_push",
        "paths",
        "trusted",
        "checksums",
        "sizes",
        arguments=[file.name for file in files],
        MODELS_PATH=models_path or "",
        MODEL=name,
        CHECKSUMS=checksums(files),
    )


def finish_script(destination: str, part: str, files: Sequence[SentFile]) -> str:
    """Return the script that checks every file and moves the folder to its place."""
    return render("finish_push", "checksums", DESTINATION=destination, PART=part, CHECKSUMS=checksums(files))


def push(connection: Connection, source: FileSource, models_path: str | None, phase: Phase) -> str:
    """Send the model and return its path on the host; bytes that the host has already are not sent again.

    Raises HostError when the host can't store the model, or when its checksums are wrong after the transfer.
    """
    phase.update("reading the model")
    files = source.files
    begun = connection.run(begin_script(models_path, source.name, files), timeout=300)
    rows = [line.split("\t") for line in begun.stdout.splitlines()]
    values = {row[0]: row[1] for row in rows if len(row) == 2}
    where = connection.target.label
    if begun.status or "destination" not in values:
        raise HostError(f"The model can't be put on {where}.", "Is the disk full or read-only?", begun.stderr)
    if "complete" not in values:
        send_files(connection, source, values["part"], read_sizes(rows), "weights", phase)
        phase.update("checking the files on the host")
        finished = connection.run(finish_script(values["destination"], values["part"], files), timeout=300)
        if finished.status:
            raise HostError(f"What arrived on {where} is not what was sent.", "Run the command again.", finished.stderr)
    return values["destination"]
