"""A shell at the other end of a stream: runs scripts one after the other, until it becomes another program.

A shell reads ahead what it has been sent, so that nothing is sent before the last script has ended.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterable

from dls.errors import ConnectError, HostError, LinkError
from dls.remote.ssh.shell import MAX_OUTPUT, Completed, OutputCollector
from dls.remote.ssh.streams import Stream
from dls.remote.ssh.target import Target

POLL_SECONDS = 0.1
"""Seconds that one read waits before the caller's `idle` runs, in which questions are asked and Ctrl-C arrives."""
START_SECONDS = 60.0
"""Longest silence of a script that starts another program."""
KEPT_LINES = 200
"""Lines of what a host prints before the shell's first answer that are kept."""
AGAIN_SECONDS = 20.0
"""Seconds of silence after which the shell is asked again whether it is there."""
NOISE_SECONDS = 600.0
"""Longest wait for the shell's first word: a person may have to find their phone."""


class PipeShell:
    """`sh` at the other end of a stream, to which scripts are sent and whose output is read between markers."""

    def __init__(self, target: Target, stream: Stream, idle: Callable[[], None] = lambda: None) -> None:
        """`idle` is called while nothing comes; an exception that it raises ends the wait."""
        self.target = target
        self._stream = stream
        self._idle = idle
        self._rest = b""
        self.noise = ""
        """What the host printed before the shell's first answer; SSH's place for a login shell's refusal."""

    def start(self) -> None:
        """Wait until the shell answers; raises ConnectError when the stream ends before, or leads to no shell.

        It is asked again after a while: a login file may have read the question.
        """
        ready = f"{secrets.token_hex(12)}-ready"
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        size = 0
        for _ in range(int(NOISE_SECONDS / AGAIN_SECONDS)):
            self._send(f"printf '\\n%s\\n' {ready}\n")
            with contextlib.suppress(LinkError):
                while (line := self._read_line(AGAIN_SECONDS)) is not None and not line.endswith(ready):
                    lines.append(line)
                    size += len(line) + 1
                    if size > MAX_OUTPUT:
                        raise ConnectError("What answers prints without end.", "", "\n".join(lines)[-2000:])
                self.noise = "\n".join(lines)
                # What only repeats its input, as `cat` does, would never say more.
                if line != ready:
                    raise ConnectError("The stream leads to no shell.", "", self.noise[-2000:])
                return
        raise LinkError(f"No shell answered within {NOISE_SECONDS:.0f} s.", "Run the command again.")

    def run(
        self,
        script: str,
        *,
        on_line: Callable[[str], None] | None = None,
        timeout: float | None = None,
        last_moved: Callable[[], float] | None = None,
    ) -> Completed:
        """Run a POSIX shell script; what it writes to standard error goes where the stream's own errors go.

        `timeout` is the longest silence in seconds; LinkError is raised after it, and when the stream ends. Nothing
        moves beside the stream of a shell, so `last_moved` says nothing here.
        """
        marker = secrets.token_hex(12)
        collector = OutputCollector(marker, on_line)
        self._send(
            f"{{ printf '%s\\n' {marker}-begin\n(\n{script}\n) </dev/null\nprintf '\\n%s %s\\n' {marker}-end $?\n}}\n"
        )
        while collector.status is None:
            line = self._read_line(timeout)
            if line is None or collector.is_too_large:
                raise LinkError("The command ended in the middle of a script.", "Run it again.")
            collector.feed(f"{line}\n".encode())
        return Completed(collector.status, collector.text, "")

    def append(self, path: str, offset: int, pieces: Iterable[bytes]) -> None:
        """Write pieces to a file on the host, at its end or, for the offset 0, in place of what it holds.

        The pieces travel in scripts, since a shell's input has no other end. Raises HostError where one is not written.
        """
        where = shlex.quote(path)
        if offset == 0:
            self.run(f"umask 077; : >{where}")
        for piece in pieces:
            text = base64.encodebytes(piece).decode()
            if self.run(f"base64 -d >>{where} <<'END'\n{text}END").status:
                raise HostError(f"{path} can't be written on {self.target.label}.", "Is the disk full or read-only?")

    def become(self, script: str) -> str:
        """Run a script that prints $READY and one line, and replaces the shell by another program; returns the line.

        The line is empty where the script ends without it, and the shell stays.
        """
        marker = secrets.token_hex(12)
        self._send(f"{{ READY={marker}-ready\n{script}\nprintf '%s\\n' {marker}-none\n}}\n")
        while True:
            # Byte by byte: what follows the line is the other program's.
            line = self._read_line(START_SECONDS, piece=1)
            if line is None:
                raise LinkError("The command ended before it was ready.", "Run it again.")
            if line.startswith(f"{marker}-ready "):
                return line.partition(" ")[2].strip()
            if line == f"{marker}-none":
                return ""

    def _send(self, text: str) -> None:
        try:
            self._stream.settimeout(None)
            self._stream.sendall(text.encode())
        except OSError:
            return  # the reader finds the stream's end, and what came before it

    def _read_line(self, timeout: float | None, piece: int = 65536) -> str | None:
        """Return the next line without its end; None at the end of the stream. Raises LinkError after the time-out."""
        started = time.monotonic()
        while b"\n" not in self._rest and len(self._rest) < MAX_OUTPUT:
            self._idle()
            self._stream.settimeout(POLL_SECONDS)
            try:
                data = self._stream.recv(piece)
            except TimeoutError:
                if timeout is not None and time.monotonic() - started > timeout:
                    raise LinkError(f"The host said nothing for {timeout:.0f} s.", "Run the command again.") from None
                continue
            except OSError:
                data = b""
            if not data:
                last, self._rest = self._rest, b""
                return last.decode(errors="replace") if last else None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.rstrip(b"\r").decode(errors="replace")
