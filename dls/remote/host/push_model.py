"""Bring a model to a host that has no way to the internet: over the same SSH connection, resumable, checked."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dls.errors import HostError, TargetError
from dls.remote.host.probe import remote_dir_words
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection

PIECE = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """One file of a model: its name in the folder, its size and its digest."""

    name: str
    size: int
    sha256: str


def model_files(folder: Path) -> list[ModelFile]:
    """Return the files of a model's folder, smallest first; hidden ones are left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            found.append(ModelFile(name, path.stat().st_size, _digest(path)))
    if not found:
        raise TargetError(f"{folder} holds no files.", "Name a model's folder.")
    return sorted(found, key=lambda parcel: parcel.size)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def start_script(models_path: str | None, name: str, wanted: list[ModelFile]) -> str:
    """Return the script that says where the model goes, whether it is there, and how much of each file has come."""
    root = remote_dir_words(models_path) if models_path else '"${NNINTERACTIVE_MODEL_DIR:-$HOME/.nninteractive}"'
    folders = " ".join(sorted({shlex.quote(str(Path(parcel.name).parent.as_posix())) for parcel in wanted}))
    sizes = "\n".join(
        f'printf "size\\t%s\\t%s\\n" {name} "$(wc -c 2>/dev/null <"$PART"/{name} || echo 0)"'
        for name in (shlex.quote(parcel.name) for parcel in wanted)
    )
    return f"""
set -u
umask 077
ROOT={root}/models
DEST=$ROOT/{shlex.quote(name)}
PART=$ROOT/.push-{shlex.quote(name)}
printf 'dest\\t%s\\npart\\t%s\\n' "$DEST" "$PART"
{_check("$DEST", wanted)} && {{ echo "there	1"; exit 0; }}
mkdir -p "$PART" || exit 73
for D in {folders}; do mkdir -p "$PART/$D" || exit 73; done
{sizes}
"""


def _check(folder: str, wanted: list[ModelFile]) -> str:
    lines = "".join(f"{parcel.sha256}  {parcel.name}\\n" for parcel in wanted)
    tool = "{ sha256sum -c - 2>/dev/null || shasum -a 256 -c - 2>/dev/null; }"
    return f'( cd "{folder}" 2>/dev/null && printf {shlex.quote(lines)} | {tool} >/dev/null )'


def finish_script(dest: str, part: str, wanted: list[ModelFile]) -> str:
    """Return the script that checks every file and moves the folder to its place."""
    return f"""
set -u
DEST={shlex.quote(dest)}
PART={shlex.quote(part)}
{_check("$PART", wanted)} || {{ rm -rf "$PART"; exit 65; }}
rm -rf "$DEST" && mv "$PART" "$DEST" || exit 73
"""


def push(connection: Connection, folder: Path, models_path: str | None, phase: Phase) -> str:
    """Send the model's folder and return where it is on the host; what has come already is not sent again."""
    phase.update("reading the model")
    wanted = model_files(folder)
    started = connection.run(start_script(models_path, folder.name, wanted), timeout=300)
    said = [line.split("\t") for line in started.stdout.splitlines()]
    places = {row[0]: row[1] for row in said if len(row) == 2}
    where = connection.target.label
    if started.status or "dest" not in places:
        raise HostError(f"The model can't be put on {where}.", "Is the disk full or read-only?", started.stderr)
    if "there" not in places:
        come = {row[1]: int(row[2].strip() or 0) for row in said if row[0] == "size"}
        _send(connection, folder, wanted, come, places["part"], phase)
        phase.update("checking what arrived")
        done = connection.run(finish_script(places["dest"], places["part"], wanted), timeout=300)
        if done.status:
            raise HostError(f"What arrived on {where} is not what was sent.", "Run the command again.", done.stderr)
    return places["dest"]


def _send(
    connection: Connection, folder: Path, wanted: list[ModelFile], come: dict[str, int], part: str, phase: Phase
) -> None:
    total = sum(parcel.size for parcel in wanted)
    sent = sum(min(come.get(parcel.name, 0), parcel.size) for parcel in wanted)

    def pieces(parcel: ModelFile, offset: int) -> Iterator[bytes]:
        nonlocal sent
        with (folder / parcel.name).open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE):
                yield piece
                sent += len(piece)
                phase.update(f"{sent / 1e6:.0f} of {total / 1e6:.0f} MB")

    for parcel in wanted:
        offset = come.get(parcel.name, 0)
        if offset != parcel.size or not parcel.size:
            offset = offset if offset < parcel.size else 0
            connection.append(f"{part}/{parcel.name}", offset, pieces(parcel, offset))
