"""List and remove the sessions that are stored on a host."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dls.contract import MANIFEST_FILE, SESSION_FORMATS, second_session_folder, session_folders
from dls.errors import DlsError, HostError
from dls.remote.host import status
from dls.remote.host.probe import NUMBER, HostReport
from dls.remote.host.scripts import render
from dls.remote.ssh.connection import Connection

TOTAL = "."
"""Name in the script's line for all sessions together."""


@dataclass(frozen=True)
class StoredSession:
    """A session's files on the host."""

    id: str
    model: str
    size: tuple[int, int, int] | None
    """Size of its image in voxels (x, y, z); None while it has no image."""
    kib: int
    """Size of its files on disk, in KiB; those of an image that other sessions have too count for each of them."""
    idle: int
    """Seconds since its last use."""


def list_folders(report: HostReport, session_dir: str | None) -> list[list[str]]:
    """Return the places in which servers of the remote directory store sessions.

    Each place is a list of folders, the one with the manifests first.
    """
    if session_dir is not None and session_dir.startswith("~/"):
        session_dir = f"{report.home}/{session_dir[2:]}"
    first = [*session_folders(report.uid, report.remote_key, session_dir)]
    if session_dir is not None:
        return [first]
    in_jobs = [*session_folders(report.uid, report.remote_key, job_session_dir(report.root))]
    is_cluster = report.scheduler or report.job
    return [first, [second_session_folder(report.home, report.remote_key)], *([in_jobs] if is_cluster else [])]


def job_session_dir(root: str) -> str:
    """Return the folder for sessions of servers in jobs: in the remote directory, which all nodes share."""
    return f"{root}/sessions"


def list_script(folders: list[str]) -> str:
    """Return the script that prints a line for each session: id, KiB, seconds since its last use, manifest."""
    return render("list_sessions", arguments=folders, MANIFEST=MANIFEST_FILE)


def read_list(text: str) -> list[StoredSession]:
    """Read the output of the script, and return the session that was used last first."""
    found = []
    for line in text.splitlines():
        name, kib, idle, manifest = [*line.split("\t", 3), "", "", ""][:4]
        if name == TOTAL or not (NUMBER.fullmatch(kib) and NUMBER.fullmatch(idle.removeprefix("-"))):
            continue
        model, size = _read_manifest(manifest)
        found.append(StoredSession(name, model, size, int(kib), max(0, int(idle))))
    return sorted(found, key=lambda session: session.idle)


def read_total(text: str) -> int:
    """Read the output of the script, and return the KiB of all sessions together, each file counted once."""
    rows = [line.split("\t") for line in text.splitlines()]
    return sum(int(row[1]) for row in rows if row[0] == TOTAL and len(row) > 1 and NUMBER.fullmatch(row[1]))


def _read_manifest(line: str) -> tuple[str, tuple[int, int, int] | None]:
    try:
        manifest = json.loads(line)
        if manifest["format"] not in SESSION_FORMATS:
            return "broken", None
        if manifest["image"] is None:
            return str(manifest["model"]), None
        z, y, x = manifest["image"]["geometry"]["shape"]
        return str(manifest["model"]), (int(x), int(y), int(z))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "broken", None


def list_sessions(
    connection: Connection, report: HostReport, session_dir: str | None
) -> tuple[list[StoredSession], int]:
    """Return the sessions on the host, the one that was used last first, and the KiB that all take together."""
    places = list_folders(report, session_dir)
    text = "\n".join(connection.run(list_script(folders), timeout=60).stdout for folders in places)
    return read_list(text), read_total(text)


def remove_sessions(connection: Connection, report: HostReport, session_dir: str | None, ids: list[str]) -> None:
    """Remove sessions: end them on the running servers, which may have them in memory, and remove their files.

    Raises HostError when files could not be removed.
    """
    for state in report.servers:
        for session in ids:
            try:
                status.request(connection, state, f"/v2/end_session/{session}")
            except DlsError:
                break  # the server does not respond; the files are removed all the same
    folders = [folder for place in list_folders(report, session_dir) for folder in place]
    paths = [f"{folder}/{session}" for folder in folders for session in ids]
    if ids and connection.run(render("remove_sessions", arguments=paths), timeout=60).status:
        raise HostError(f"Some sessions on {connection.target.label} could not be removed.", "Log in and check why.")
