"""What is ours on a host, and its removal: the host is left as it was, but for the caches of uv and pip."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dls.contract import DEFAULT_REMOTE_DIR, ServerState
from dls.errors import HostError
from dls.remote.host import status
from dls.remote.host.probe import NUMBER, HostReport
from dls.remote.host.scripts import render
from dls.remote.host.stored_sessions import list_folders
from dls.remote.ssh.connection import Connection

USED_SECONDS = 8.0
"""Seconds without a request after which no client is connected."""
PAUSE_SECONDS = 0.5
"""Seconds between two looks at whether one is."""
KEPT = "kept model"
"""Kind of a model that dls has put there, and that is not to be removed."""
STAYS = "stays"
"""Kind of what is in the remote directory and is not ours."""


@dataclass(frozen=True)
class Belonging:
    """A folder of ours on the host."""

    kind: str
    path: str
    kib: int


@dataclass(frozen=True)
class Removal:
    """Selects what is removed besides the installation."""

    session_dir: str | None = None
    """Folder that was given to the server for its sessions."""
    models: bool = False
    """Whether the models are removed that dls has put there."""
    models_path: str | None = None
    """Folder for models, by default the host's own."""


def script(report: HostReport, removal: Removal, action: str) -> str:
    """Return the script that lists what is ours, or removes it: `action` is `list` or `remove`."""
    folders = [folder for place in list_folders(report, removal.session_dir) for folder in place]
    if removal.session_dir is not None:
        folders += [folder for place in list_folders(report, None) for folder in place]
    return render(
        "ours",
        "paths",
        "trusted",
        "temporary",
        arguments=folders,
        ROOT=report.root,
        KEY=report.remote_key,
        HOME_DIR=f"{report.home}/{DEFAULT_REMOTE_DIR.removeprefix('~/')}",
        MODELS_PATH=removal.models_path or "",
        WITH_MODELS="1" if removal.models else "",
        ACTION=action,
    )


def read_list(text: str) -> list[Belonging]:
    """Read what the script prints; a folder that it names twice is there once."""
    found: dict[str, Belonging] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition("\t")
        kib, _, path = rest.partition("\t")
        if path.startswith("/") and (not kib or NUMBER.fullmatch(kib)):
            found.setdefault(path, Belonging(kind, path, int(kib or 0)))
    return list(found.values())


def list_belongings(connection: Connection, report: HostReport, removal: Removal) -> list[Belonging]:
    """Return the folders of ours on the host."""
    return read_list(connection.run(script(report, removal, "list"), timeout=300).stdout)


def remove_belongings(connection: Connection, report: HostReport, removal: Removal) -> list[Belonging]:
    """Remove them, and return what stays in the remote directory since it is not ours; raises HostError.

    No server may run there any more.
    """
    removed = connection.run(script(report, removal, "remove"), timeout=900)
    if removed.status:
        raise HostError(
            f"Not all of it could be removed from {connection.target.label}.",
            "Log in and check why; the same command again goes on.",
            removed.stderr,
        )
    return [each for each in read_list(removed.stdout) if each.kind == STAYS]


def check_shared(report: HostReport) -> None:
    """Raise HostError where a server runs on another host that shares the remote directory."""
    if nodes := sorted({record.node for record in report.elsewhere if record.node != report.hostname}):
        raise HostError(
            f"A server of yours runs on {', '.join(nodes)}, which shares {report.root}.",
            f"Stop it first: dls stop {nodes[0]}",
        )


def check_unused(connection: Connection, state: ServerState, pause: Callable[[float], None] = time.sleep) -> None:
    """Raise HostError where a client is connected to the server, which would set everything up again.

    A client asks for the server's status every few seconds; waits until one would have asked.
    """
    before = -1.0
    while True:
        idle = status.get_facts(connection, state).get("idle")
        if not isinstance(idle, int | float) or idle >= USED_SECONDS:
            return
        if idle < before:
            raise HostError(
                f"Somebody is connected to the server on {connection.target.label}, and would set it up again.",
                "End that dls connect first.",
            )
        before = idle
        pause(PAUSE_SECONDS)
