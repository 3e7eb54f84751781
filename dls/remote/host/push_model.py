"""Send a model over the SSH connection to a host without internet access; resumable and verified by checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dls.errors import HostError, TargetError
from dls.remote.host.probe import NUMBER
from dls.remote.host.scripts import render
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection

CHUNK_BYTES = 1 << 20
"""Number of bytes that are read and sent at a time."""


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: its name in the folder, its size and its digest."""

    name: str
    size: int
    sha256: str


def model_files(folder: Path) -> list[ModelFile]:
    """Return the files of a model's folder, smallest first, without hidden ones; raises TargetError for none."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            found.append(ModelFile(name, path.stat().st_size, _digest(path)))
    if not found:
        raise TargetError(f"{folder} holds no files.", "Name a model's folder.")
    return sorted(found, key=lambda file: file.size)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def begin_script(models_path: str | None, name: str, files: list[ModelFile]) -> str:
    """Return the script that prints the model's place, whether it is complete, and the bytes of each file there."""
    return render(
        "begin_push",
        "paths",
        "checksums",
        arguments=[file.name for file in files],
        MODELS_PATH=models_path or "",
        MODEL=name,
        CHECKSUMS=_checksums(files),
    )


def _checksums(files: list[ModelFile]) -> str:
    return "\n".join(f"{file.sha256}  {file.name}" for file in files)


def finish_script(destination: str, part: str, files: list[ModelFile]) -> str:
    """Return the script that checks every file and moves the folder to its place."""
    return render("finish_push", "checksums", DESTINATION=destination, PART=part, CHECKSUMS=_checksums(files))


def push(connection: Connection, folder: Path, models_path: str | None, phase: Phase) -> str:
    """Send the model's folder and return its path on the host; bytes that the host has already are not sent again.

    Raises HostError when the host can't store the model, or when its checksums are wrong after the transfer.
    """
    phase.update("reading the model")
    files = model_files(folder)
    begun = connection.run(begin_script(models_path, folder.name, files), timeout=300)
    rows = [line.split("\t") for line in begun.stdout.splitlines()]
    values = {row[0]: row[1] for row in rows if len(row) == 2}
    where = connection.target.label
    if begun.status or "destination" not in values:
        raise HostError(f"The model can't be put on {where}.", "Is the disk full or read-only?", begun.stderr)
    if "complete" not in values:
        offsets = {row[1]: _size(row[2]) for row in rows if row[0] == "size" and len(row) == 3}
        _send(connection, folder, files, offsets, values["part"], phase)
        phase.update("checking the files on the host")
        finished = connection.run(finish_script(values["destination"], values["part"], files), timeout=300)
        if finished.status:
            raise HostError(f"What arrived on {where} is not what was sent.", "Run the command again.", finished.stderr)
    return values["destination"]


def _size(text: str) -> int:
    """Return how many bytes of a file the host has; 0 for an odd answer, after which the whole file is sent."""
    return int(text) if NUMBER.fullmatch(text := text.strip()) else 0


def _send(
    connection: Connection, folder: Path, files: list[ModelFile], offsets: dict[str, int], part: str, phase: Phase
) -> None:
    total = sum(file.size for file in files)
    sent = sum(min(offsets.get(file.name, 0), file.size) for file in files)

    def chunks(file: ModelFile, offset: int) -> Iterator[bytes]:
        nonlocal sent
        with (folder / file.name).open("rb") as stream:
            stream.seek(offset)
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
                sent += len(chunk)
                phase.update(f"{sent / 1e6:.0f} of {total / 1e6:.0f} MB")

    for file in files:
        offset = offsets.get(file.name, 0)
        if offset != file.size or not file.size:
            offset = offset if offset < file.size else 0
            connection.append(f"{part}/{file.name}", offset, chunks(file, offset))
