"""Scripts for a host's shell, and their output separated from what the login shell prints: pure, without sockets."""

from __future__ import annotations

import re
from collections.abc import Callable


def wrap_script(script: str, marker: str) -> str:
    """Return the text that `sh` reads on standard input to run the script and print its output between two markers."""
    # The braces make sh read the whole script before it runs any of it; standard input is then free.
    return (
        f"{{ printf '%s\\n' {marker}-begin\n(\n{script}\n) </dev/null\n"
        f"printf '\\n%s %s\\n' {marker}-end $?\nexit 0\n}}\n"
    )


class OutputCollector:
    """Extracts the script's lines and its exit status from the shell's output, fed to it in pieces."""

    def __init__(self, marker: str, on_line: Callable[[str], None] | None) -> None:
        self._begin = f"{marker}-begin"
        self._end = f"{marker}-end "
        self._on_line = on_line
        self._buffer = b""
        self._lines: list[str] = []
        self._inside = False
        self.noise = ""
        """Output of the login shell before the script's own."""
        self.status: int | None = None
        """Exit status of the script; None until its end marker has been read."""

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the shell's output."""
        *lines, self._buffer = re.split(b"[\r\n]", self._buffer + data)
        for raw in lines:
            self._feed_line(raw.decode(errors="replace"))

    def _feed_line(self, line: str) -> None:
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
        """The script's output, without the newline that precedes the end marker."""
        return "\n".join(self._lines[:-1] if self._lines and not self._lines[-1] else self._lines)
