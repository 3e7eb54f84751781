"""The sessions that are kept on a host: look at them, remove them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from dls.contract import MANIFEST_FILE, SESSION_FORMAT, session_folders
from dls.errors import DlsError, HostError
from dls.remote.host import status
from dls.remote.host.probe import HostReport
from dls.remote.ssh.connection import Connection


@dataclass(frozen=True)
class StoredSession:
    """A session's files on the host."""

    id: str
    model: str
    size: tuple[int, int, int] | None
    """Of its image, x, y and z in voxels; None before one has come."""
    kib: int
    """On disk."""
    idle: int
    """Seconds since it was used last."""


def places(report: HostReport, session_dir: str | None) -> list[str]:
    """Return the folders in which servers of the remote directory keep sessions."""
    if session_dir is not None and session_dir.startswith("~/"):
        session_dir = f"{report.home}/{session_dir[2:]}"
    return [*session_folders(report.uid, report.remote_key, session_dir)]


def list_script(folders: list[str]) -> str:
    """Return the script that prints a line for each session: name, KiB, seconds, manifest."""
    home, others = folders[0], " ".join(shlex.quote(folder) for folder in folders)
    return f"""
NOW=$(date +%s)
cd {shlex.quote(home)} 2>/dev/null || exit 0
for S in *; do
  [ -d "$S" ] && [ -O "$S" ] || continue
  K=0
  T=0
  for F in {others}; do
    [ -d "$F/$S" ] || continue
    N=$(du -sk "$F/$S" | awk '{{ print $1 }}')
    K=$((K + N))
    for P in "$F/$S"/*; do
      M=$(stat -c %Y "$P" 2>/dev/null || stat -f %m "$P" 2>/dev/null || echo 0)
      [ "$M" -le "$T" ] || T=$M
    done
  done
  printf '%s\\t%s\\t%s\\t%s\\n' "$S" "$K" "$((NOW - T))" "$(head -n 1 "$S/{MANIFEST_FILE}" 2>/dev/null)"
done
:
"""


def read_list(text: str) -> list[StoredSession]:
    """Read what the script printed, the session used last at first."""
    found = []
    for line in text.splitlines():
        name, kib, idle, manifest = [*line.split("\t", 3), "", "", ""][:4]
        if not (kib.isdigit() and idle.lstrip("-").isdigit()):
            continue
        model, size = _described(manifest)
        found.append(StoredSession(name, model, size, int(kib), max(0, int(idle))))
    return sorted(found, key=lambda session: session.idle)


def _described(manifest: str) -> tuple[str, tuple[int, int, int] | None]:
    try:
        said = json.loads(manifest)
        if said["format"] != SESSION_FORMAT:
            return "broken", None
        if said["image"] is None:
            return str(said["model"]), None
        z, y, x = said["image"]["geometry"]["shape"]
        return str(said["model"]), (int(x), int(y), int(z))
    except (ValueError, KeyError, TypeError):
        return "broken", None


def look(connection: Connection, report: HostReport, session_dir: str | None) -> list[StoredSession]:
    """Return the sessions on the host."""
    return read_list(connection.run(list_script(places(report, session_dir)), timeout=60).stdout)


def remove(connection: Connection, report: HostReport, session_dir: str | None, names: list[str]) -> None:
    """Remove sessions: by the servers that run, since one of them may have it in memory, and then their files."""
    for state in report.servers:
        for name in names:
            try:
                status.ask(connection, state, f"/v2/end_session/{name}")
            except DlsError:
                break  # it does not answer; the files are ours all the same
    folders = places(report, session_dir)
    words = " ".join(shlex.quote(f"{folder}/{name}") for folder in folders for name in names)
    if names and connection.run(f"rm -rf {words}", timeout=60).status:
        raise HostError(f"Some sessions on {connection.target.label} could not be removed.", "Log in and look why.")
