"""Whether the remote directory can hold what is installed there, as the probe found: pure."""

from __future__ import annotations

from dls.errors import HostError
from dls.remote.host.packages import Requirements
from dls.remote.host.probe import HostReport

STORAGE_FAULTS = {
    "read-only": "its disk is read-only",
    "denied": "you may not write there",
    "missing": "the home directory does not exist",
    "full": "its disk is full",
    "quota": "your quota there is used up",
    "noexec": "no programs may run there (noexec)",
    "failed": "writing there fails",
}
"""Why nothing can be installed in the remote directory, by the name that storage.sh has for it."""


def check_storage(report: HostReport, needed: Requirements) -> None:
    """Raise HostError where the packages can't be put into the remote directory, with the places that would do."""
    space = needed.disk_on(bool(report.gpus))
    if 0 < report.free_mib < space:
        room = f"{report.free_mib} MiB free; the packages need {space}"
        message = f"{report.root} on {report.hostname} has {room}."
    elif report.storage in STORAGE_FAULTS:
        message = f"{report.root} on {report.hostname} can't hold the server: {STORAGE_FAULTS[report.storage]}."
    else:
        return
    if report.places:
        hint = f"Name another directory with --remote-dir. These would do: {', '.join(map(str, report.places))}."
    else:
        hint = "Name another directory with --remote-dir; the usual ones (/scratch, /work, /data, /var/tmp …) won't do."
    if needed.lock == "nninteractive":
        hint += " The model goes to the home, unless --models-path names another directory for it."
    raise HostError(message, hint)
