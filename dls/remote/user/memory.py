"""What dls remembers by itself, in one JSON file each: hosts that were used, and licences that were agreed to.

A file that is missing, broken or of another format counts as empty: nothing that is remembered is worth a failure.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from dls.remote.user.folders import state_folder, write_private

HOSTS_FILE, LICENCES_FILE = "hosts.json", "licences.json"
FORMAT = 1
MOST_HOSTS = 100
"""Hosts that are remembered; those used least recently are forgotten first."""


@dataclass(frozen=True)
class UsedHost:
    """A host that was connected to before."""

    target: str
    """As the user named it."""
    last: datetime
    """When it was connected to last."""
    count: int = 1
    """How often it was."""


def used_before() -> list[UsedHost]:
    """Return the hosts that were connected to before, the last one first."""
    found = []
    for target, fields in _read(HOSTS_FILE).items():
        # A time far off is no time in this computer's zone (OverflowError), or none that Windows knows (OSError).
        with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError, OSError):
            last = datetime.fromisoformat(str(fields["last"])).astimezone()
            found.append(UsedHost(target, last, int(str(fields["count"]))))
    return sorted(found, key=lambda host: host.last, reverse=True)


def remember(target: str, now: datetime | None = None) -> None:
    """Remember that the host was connected to; what can't be written is not remembered."""
    now = now or datetime.now(timezone.utc)

    def add(entries: dict[str, dict[str, object]]) -> None:
        count = entries.pop(target, {}).get("count", 0)
        entries[target] = {
            "last": now.isoformat(timespec="seconds"),
            "count": 1 + (count if isinstance(count, int) else 0),
        }
        for oldest in list(entries)[:-MOST_HOSTS]:
            del entries[oldest]

    _change(HOSTS_FILE, add)


def forget(target: str) -> bool:
    """Forget that the host was connected to; returns whether it was remembered."""
    was_there = target in _read(HOSTS_FILE)
    _change(HOSTS_FILE, lambda entries: entries.pop(target, None))
    return was_there


def has_agreed(licence: str) -> bool:
    """Return whether the user agreed to the licence of that name before, on this computer."""
    return licence in _read(LICENCES_FILE)


def agree(licence: str) -> bool:
    """Remember that the user agreed to the licence; returns whether that could be written."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return _change(LICENCES_FILE, lambda entries: entries.update({licence: {"agreed": now}}))


def _read(name: str) -> dict[str, dict[str, object]]:
    try:
        fields = json.loads((state_folder() / name).read_text(encoding="utf-8"))
        entries = fields["entries"] if fields["format"] == FORMAT else {}
        return {key: value for key, value in entries.items() if isinstance(value, dict)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _change(name: str, change: Callable[[dict[str, dict[str, object]]], object]) -> bool:
    entries = _read(name)
    change(entries)
    try:
        write_private(Path(state_folder() / name), json.dumps({"format": FORMAT, "entries": entries}, indent=1) + "\n")
    except OSError:
        return False
    return True
