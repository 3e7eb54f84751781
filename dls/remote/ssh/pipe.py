"""A child process whose standard input and output are a stream of bytes, as paramiko takes one: ProxyCommand, `ssh`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from dls.errors import ConnectError

KEPT_LINES = 100
"""Lines of standard error that are kept."""
END_SECONDS = 1.0
"""Seconds that the process has to end by itself, and then again after a signal."""
PIECE = 65536


class Pipe:
    """A running command, and the socket that is connected to its standard input and output."""

    def __init__(
        self,
        command: Sequence[str] | str,
        *,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        pumps: bool = os.name == "nt",
        asks_at_console: bool = False,
    ) -> None:
        """Start the command, a text with the system's shell; raises ConnectError where it can't be started.

        `pumps` copies the bytes in threads: on Windows a socket can't be a process's standard input. There,
        `asks_at_console` lets the process use the console. Elsewhere it has no terminal to ask at, and Ctrl-C does not
        reach it before what it carries has been closed.
        """
        self.socket, theirs = socket.socketpair()
        stream: int = subprocess.PIPE if pumps else theirs.fileno()
        try:
            self.process = subprocess.Popen(
                command,
                shell=isinstance(command, str),
                stdin=stream,
                stdout=stream,
                stderr=subprocess.PIPE,
                env=None if environment is None else dict(environment),
                start_new_session=True,
                creationflags=0 if asks_at_console else getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self.socket.close()
            theirs.close()
            name = command if isinstance(command, str) else command[0]
            raise ConnectError(f"{name} can't be started: {error.strerror}.", "Check the command.") from error
        self.on_line = on_line
        """Called with each line of standard error, in a thread; None for nobody."""
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reader = threading.Thread(target=self._read_errors, name="dls-pipe-errors", daemon=True)
        self._reader.start()
        if pumps:
            self._pump(theirs)
        else:
            theirs.close()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for raw in stream:
                line = raw.decode(errors="replace").rstrip("\r\n")
                self._lines.append(line)
                if self.on_line is not None and line.strip():
                    self.on_line(line)

    def _pump(self, theirs: socket.socket) -> None:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        out = threading.Thread(target=_copy_out, args=(stdout, theirs), name="dls-pipe-out", daemon=True)

        def copy_in() -> None:
            _copy_in(theirs, stdin)
            out.join()
            theirs.close()

        out.start()
        threading.Thread(target=copy_in, name="dls-pipe-in", daemon=True).start()

    @property
    def errors(self) -> str:
        """The last lines of the process's standard error; all of it when the process has ended."""
        if self.process.poll() is not None:
            self._reader.join(END_SECONDS)
        return "\n".join(self._lines)

    def wait(self) -> int | None:
        """Return the process's exit status; None where it does not end within END_SECONDS."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(END_SECONDS)
        return None

    def close(self) -> None:
        """Close the stream and end the process, by force where it does not end by itself."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for force in (None, "SIGTERM", "SIGKILL"):
            if force is not None:
                self._signal(force)
            if self.wait() is not None:
                return

    def _signal(self, name: str) -> None:
        # A shell that runs the command may have children; they are in its process group.
        with contextlib.suppress(OSError):
            if os.name == "nt":
                self.process.kill()
            else:
                os.killpg(self.process.pid, getattr(signal, name))


def _copy_in(source: socket.socket, stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        while data := source.recv(PIECE):
            stream.write(data)
            stream.flush()


def _copy_out(stream: IO[bytes], target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        while data := os.read(stream.fileno(), PIECE):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
