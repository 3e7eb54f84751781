"""Scripts for a host's shell, and their output separated from what the login shell prints: pure, without sockets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from dls.remote.ssh.target import Target

MAX_OUTPUT = 16 << 20
"""Bytes that a script may print, that one line may have, and that a login shell may print before the script."""
SPARE_LINES = 64
"""Lines that a login file may read from a script before what is left of it could run."""


def shell_command(marker: str) -> str:
    """Return the command line that starts `sh` for a wrapped script, for every login shell: sh, csh or fish.

    Its first part tells that the login shell has read its login files, and still runs.
    """
    return f"echo {marker}-shell; exec sh -s {marker}"


@dataclass(frozen=True)
class Completed:
    """Exit status and output of a script that ran on the host."""

    status: int
    stdout: str
    stderr: str


class ScriptRunner(Protocol):
    """What runs scripts on a host: a connection, or a shell in a pipe."""

    @property
    def target(self) -> Target:
        """The host."""

    def run(
        self,
        script: str,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
        last_moved: Callable[[], float] | None = None,
    ) -> Completed:
        """Run a POSIX shell script, call `on_line` with each line of its output, and return what it printed.

        `timeout` is the longest silence in seconds; raises LinkError after it. `last_moved` says when something else
        than output showed that the script is at work, by `time.monotonic`.
        """

    def append(self, path: str, offset: int, pieces: Iterable[bytes]) -> None:
        """Write pieces to a file on the host from an offset on; only its user can read the file; raises HostError."""


def wrap_script(script: str, marker: str) -> str:
    """Return the text that `sh` reads on standard input to run the script and print its output between two markers.

    The first line says that a shell reads the text; it is the right one if it has the marker as its parameter. A login
    file that reads one line takes that one, without which the script does not run; one that reads more takes opening
    braces, and a text whose braces do not match is not run at all. Where a login file prints the text, none of its
    lines looks like one of the markers.
    """
    # The braces also make sh read the whole script before it runs any of it; standard input is then free.
    return (
        f"DLS_INPUT={marker}; printf '%s-input\\n' {marker}\n"
        + "{\n" * SPARE_LINES
        + '[ "$1" = "$DLS_INPUT" ] || exit 0\n'
        f"printf '%s-begin\\n' \"$1\"\n(\n{script}\n) </dev/null\n"
        f"printf '\\n%s %s\\n' {marker}-end $?\nexit 0\n" + " ".join("}" * SPARE_LINES) + "\n"
    )


class OutputCollector:
    """Extracts the script's lines and its exit status from the shell's output, fed to it in pieces.

    With `on_line`, output may go on without end, as that of a log which is followed, and its last part is kept.
    """

    def __init__(self, marker: str, on_line: Callable[[str], None] | None) -> None:
        self._marker = marker.encode()
        self._begin = f"{marker}-begin".encode()
        self._end = f"{marker}-end ".encode()
        self._on_line = on_line
        self._unfinished = bytearray()
        self._noise = bytearray()
        self._output = bytearray()
        self.has_begun = False
        """Whether the script's first marker has been read."""
        self.status: int | None = None
        """Exit status of the script; None until its end marker has been read."""

    @property
    def noise(self) -> str:
        """Output of the login shell before the script's own."""
        lines = bytes(self._noise + self._unfinished).splitlines(keepends=True)
        return b"".join(line for line in lines if self._marker not in line).decode(errors="replace")

    @property
    def login_files_have_ended(self) -> bool:
        """Whether the login shell has read its login files, and ran the command line of `shell_command`."""
        return self._marker + b"-shell" in self._noise

    @property
    def is_read_by_a_shell(self) -> bool:
        """Whether some shell has read the script's first line."""
        return self._marker + b"-input" in self._noise

    @property
    def is_too_large(self) -> bool:
        """Whether more has come than a script's output may have."""
        is_endless = self._on_line is None and len(self._output) > MAX_OUTPUT
        return is_endless or len(self._unfinished) > MAX_OUTPUT or len(self._noise) > MAX_OUTPUT

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the shell's output."""
        *ends, rest = re.split(b"[\r\n]", data)
        for end in ends:
            line = bytes(self._unfinished + end)
            self._unfinished.clear()
            self._feed_line(line)
        self._unfinished += rest
        if self._on_line is not None and len(self._output) > 2 * MAX_OUTPUT:
            del self._output[:-MAX_OUTPUT]

    def _feed_line(self, line: bytes) -> None:
        if self.status is not None:
            return
        if not self.has_begun:
            self.has_begun = line.endswith(self._begin)
            self._noise += b"" if self.has_begun else line + b"\n"
        elif line.startswith(self._end):
            self.status = _parse_status(line.removeprefix(self._end))
        else:
            self._output += line + b"\n"
            if self._on_line and line.strip():
                self._on_line(line.decode(errors="replace"))

    @property
    def text(self) -> str:
        """The script's output, without the newline that precedes the end marker."""
        lines = self._output.decode(errors="replace")
        return lines[:-2] if lines.endswith("\n\n") or lines == "\n" else lines[:-1]


def _parse_status(text: bytes) -> int | None:
    """Return the exit status in the line of the end marker; None for what is no number that a shell could print."""
    return int(text) if re.fullmatch(b"[0-9]{1,3}", text) else None
