"""How far an installation is, from what uv or pip print of it: no sockets, no threads, the time is passed in."""

from __future__ import annotations

import re

from dls.remote.progress import Transfer

DOWNLOADING = re.compile(r"\s*Downloading (\S+) \((\d+(?:\.\d+)?)( ?)([kKMG]?i?)(?:B|bytes)\)")
"""`Downloading torch (821.3MiB)` of uv, `Downloading torch-2.10.0-cp312.whl (821.3 MB)` of pip."""
DOWNLOADED = re.compile(r"\s*Downloaded (\S+)")
"""What uv says when a package has arrived; pip says nothing, and fetches one after the other."""
FACTORS = {
    "": 1.0,
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "ki": 1024.0,
    "Ki": 1024.0,
    "Mi": 1024.0**2,
    "Gi": 1024.0**3,
}


class InstallOutput:
    """Counts what the lines of uv or pip say: sizes of packages that are fetched, and which have arrived.

    uv begins nearly all downloads at once, so what it has named is nearly all of it; what pip will fetch nobody knows.
    """

    def __init__(self, now: float) -> None:
        self._begun = now
        self._coming: dict[str, float] = {}
        self._done = 0.0
        self._total: float | None = 0.0

    def read(self, line: str, now: float) -> Transfer | None:
        """Read a line, and return how far the installation is where the line changes that."""
        if match := DOWNLOADING.match(line):
            name, number, space, unit = match.groups()
            size = float(number) * FACTORS[unit]
            if space:  # pip
                self._done += sum(self._coming.values())
                self._coming, self._total = {name: size}, None
            else:
                self._coming[name] = size
                self._total = (self._total or 0.0) + size
        elif (match := DOWNLOADED.match(line)) and match[1] in self._coming:
            self._done += self._coming.pop(match[1])
        else:
            return None
        seconds = now - self._begun
        rate = self._done / seconds if seconds > 0 else 0.0
        return Transfer("packages", int(self._done), None if self._total is None else int(self._total), rate)
