"""A script as a host's shell gets it, and its output taken out of what the login shell may print: no sockets here."""

from __future__ import annotations

import re
from collections.abc import Callable


def wrapped(script: str, mark: str) -> str:
    """Return the script as it goes to `sh` on standard input, its output between two markers."""
    # The braces make sh read the whole script before it runs any of it; standard input is then free.
    return (
        f"{{ printf '%s\\n' {mark}-begin\n(\n{script}\n) </dev/null\nprintf '\\n%s %s\\n' {mark}-end $?\nexit 0\n}}\n"
    )


class Collector:
    """Takes the lines between the two markers out of a stream of bytes."""

    def __init__(self, mark: str, on_line: Callable[[str], None] | None) -> None:
        self._begin = f"{mark}-begin"
        self._end = f"{mark}-end "
        self._on_line = on_line
        self._buffer = b""
        self._lines: list[str] = []
        self._inside = False
        self.noise = ""
        self.status: int | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        *lines, self._buffer = re.split(b"[\r\n]", self._buffer + data)
        for raw in lines:
            self._line(raw.decode(errors="replace"))

    def _line(self, line: str) -> None:
        if self.status is not None:
            return
        if not self._inside:
            self._inside = line.endswith(self._begin)
            self.noise += "" if self._inside else line + "\n"
        elif line.startswith(self._end):
            self.status = int(line.removeprefix(self._end))
        else:
            self._lines.append(line)
            if self._on_line and line.strip():
                self._on_line(line)

    @property
    def text(self) -> str:
        """What the script printed, without the newline that the end marker brings."""
        return "\n".join(self._lines[:-1] if self._lines and not self._lines[-1] else self._lines)
