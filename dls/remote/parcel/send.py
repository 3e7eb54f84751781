"""Send a parcel to a host, resumably, and install from it there: no network is needed for that, here or there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dls.errors import HostError
from dls.remote.host import push_model
from dls.remote.host.install import InstallPlan, Tool
from dls.remote.host.packages import Requirements
from dls.remote.host.probe import HostReport, Python
from dls.remote.host.refusals import raise_refusal
from dls.remote.host.scripts import render
from dls.remote.host.send_files import SentFile, checksums, missing_bytes, read_sizes, send_files
from dls.remote.parcel.archive import Parcel, find_model
from dls.remote.parcel.fit import check_room, find_python
from dls.remote.parcel.format import MODEL, PYTHON, UV, Manifest, PackedFile
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.shell import Completed, ScriptRunner

DIFFERS = 65
"""Exit status of open_parcel.sh when a file is not the one that was sent."""
NO_SPACE = 73
SILENCE_SECONDS = 600
"""Seconds that the host may take to check some GB without a word."""


@dataclass(frozen=True)
class PackedPackages:
    """The files of a parcel from which an environment is made, as a source of files."""

    parcel: Parcel
    with_python: bool
    """Whether the parcel's Python is wanted."""

    @property
    def name(self) -> str:
        """Name of the parcel's folder on hosts."""
        return self.parcel.manifest.key

    @property
    def files(self) -> tuple[PackedFile, ...]:
        """The files in the parcel's order."""
        left_out = {MODEL} if self.with_python else {MODEL, PYTHON}
        return tuple(file for file in self.parcel.manifest.files if file.folder not in left_out)

    def read(self, file: SentFile, offset: int) -> Iterator[bytes]:
        """Yield the file's bytes from the offset on."""
        return self.parcel.read(file, offset)


@dataclass(frozen=True)
class Arrived:
    """A parcel's files on the host, checked, with the programs in it at their places."""

    folder: str
    uv: str
    """Path of uv; empty where it does not run there."""
    python: str
    """Path of the parcel's Python; empty where it has none, and where the host's own does."""


def begin_script(root: str, folder: str, files: tuple[PackedFile, ...]) -> str:
    """Return the script that makes the parcel's folder and prints the bytes of each file there."""
    names = [file.name for file in files]
    return render("begin_parcel", "trusted", "sizes", arguments=names, ROOT=root, FOLDER=folder)


def open_script(root: str, folder: str, manifest: Manifest, files: tuple[PackedFile, ...]) -> str:
    """Return the script that checks the files and puts the programs among them to their places."""
    python = next((file.name for file in files if file.folder == PYTHON), "")
    return render(
        "open_parcel",
        "trusted",
        "checksums",
        ROOT=root,
        FOLDER=folder,
        CHECKSUMS=checksums(files),
        UV_FILE=manifest.files_in(UV)[0].name,
        PYTHON_FILE=python,
        PYTHON_NAME=python.partition("/")[2].removesuffix(".tar.gz"),
        PYTHON_VERSION=manifest.python,
    )


def send(connection: ScriptRunner, parcel: Parcel, report: HostReport, needed: Requirements, phase: Phase) -> Arrived:
    """Send what the host lacks of the parcel's packages, and return where they are; the weights stay here.

    Raises HostError where the host has no room or its files are wrong, LinkError when the link is lost: what has
    arrived stays there, and the next attempt sends the rest.
    """
    own = find_python(parcel.manifest, report)
    source = PackedPackages(parcel, with_python=own is None or not own.has_venv)
    folder = f"{report.root}/parcels/{source.name}"
    phase.update("looking what of the parcel is there")
    begun = connection.run(begin_script(report.root, folder, source.files), timeout=60)
    _check(connection, begun, report, "can't be put")
    sizes = read_sizes([line.split("\t") for line in begun.stdout.splitlines()])
    check_room(parcel.manifest, report, needed, missing_bytes(source.files, sizes))
    send_files(connection, source, folder, sizes, "the parcel", phase)
    phase.update("checking the parcel on the host")
    opened = connection.run(open_script(report.root, folder, parcel.manifest, source.files), timeout=SILENCE_SECONDS)
    _check(connection, opened, report, "can't be opened")
    found = dict(line.split("\t", 1) for line in opened.stdout.splitlines() if "\t" in line)
    return Arrived(folder, found.get("uv", ""), found.get("python", ""))


def _check(connection: ScriptRunner, completed: Completed, report: HostReport, what: str) -> None:
    where = connection.target.label
    raise_refusal(where, completed, report.run_dir)
    if completed.status == DIFFERS:
        raise HostError(
            f"What arrived on {where} is not what was sent.", "Run the command again: it sends those files anew."
        )
    if completed.status:
        reason = "no room is left" if completed.status == NO_SPACE else f"status {completed.status}"
        raise HostError(
            f"The parcel {what} on {where}: {reason}.",
            "Is the disk full or read-only? Another directory can be named with --remote-dir.",
            completed.stderr or completed.stdout,
        )


def adapt(plan: InstallPlan, parcel: Parcel, report: HostReport, arrived: Arrived) -> InstallPlan:
    """Return the plan that installs from the parcel's files; raises HostError where neither uv nor pip can."""
    manifest = parcel.manifest
    python = find_python(manifest, report)
    if arrived.python:
        major, minor = map(int, manifest.python.split("."))
        python = Python(arrived.python, (major, minor, 0), has_venv=True, has_pip=True)
    if python is None or not (arrived.uv or python.has_venv):
        raise HostError(
            f"{report.hostname} can neither run uv nor make an environment with its Python.",
            "Pack a Python too: `dls pack` with --with-python.",
        )
    tool = Tool.UV if arrived.uv else Tool.PIP
    return replace(
        plan, tool=tool, uv=arrived.uv, python=python, lock=manifest.lock, parcel=arrived.folder, download_bytes=None
    )


def remove(connection: ScriptRunner, report: HostReport, arrived: Arrived) -> None:
    """Remove the parcel's files from the host; raises HostError for a folder that another user can change."""
    script = render("remove_parcel", "trusted", ROOT=report.root, FOLDER=arrived.folder)
    raise_refusal(connection.target.label, connection.run(script, timeout=60), report.run_dir)


def push_weights(connection: Connection, parcel: Parcel, models_path: str | None, phase: Phase) -> str:
    """Send the parcel's weights to where `dls models push` puts them, and return their folder; raises HostError."""
    return push_model.push(connection, find_model(parcel), models_path, phase)
