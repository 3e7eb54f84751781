"""Remembers which sessions were found expired, so that one look at a wrong clock removes none of them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Set
from pathlib import Path

from dls.server.sessions.incoming import write_file

FILE = "expired.json"
"""Name of the file, in the folder of all sessions, with the time at which each session was first found expired."""

log = logging.getLogger("dls.server")


class Sightings:
    """The times at which sessions were first found expired, in a file that outlives the server."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self._path = folder / FILE
        self._seconds = seconds

    def confirm(self, expired: Set[str]) -> list[str]:
        """Return those of the sessions expired now that were found expired the given seconds ago, and ever since."""
        now = time.time()
        before = self._read()
        first = {name: min(before.get(name, now), now) for name in expired}  # the clock may have been ahead before
        confirmed = [name for name, seen in first.items() if now - seen >= self._seconds]
        kept = {name: seen for name, seen in first.items() if name not in confirmed}
        if kept != before:
            self._write(kept)
        return confirmed

    def _read(self) -> dict[str, float]:
        try:
            return {str(name): float(seen) for name, seen in json.loads(self._path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def _write(self, times: dict[str, float]) -> None:
        part = self._path.with_suffix(".part")
        try:
            write_file(part, json.dumps(times).encode())
            part.replace(self._path)
        except OSError as error:
            log.warning("what was found expired can't be written down: %s", error.strerror)
