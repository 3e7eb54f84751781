"""A server on this computer for one command: it listens where only this user gets in, and ends with the command."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from dls.contract import ERROR_PREFIX, HINT_PREFIX
from dls.credentials import USER, make_secret
from dls.errors import ConnectError, DlsError, LaunchError, LinkError
from dls.remote.progress import Phase, Phases
from dls.segment import http
from dls.segment.http import Address

MAX_SOCKET_PATH = 90
"""Longest path of a Unix socket, with some room: macOS takes 103 bytes."""
POLL_SECONDS = 0.1
END_SECONDS = 20.0
"""Seconds that the server has to end, before it is killed."""
KEPT_LINES = 200
PORT = re.compile(r"Port: (\d+)")
"""How the banner names the port."""


class LocalServer:
    """A `dls serve` of our own: its process, where it listens, and the last lines that it wrote."""

    def __init__(self, folder: Path, options: Sequence[str], *, with_port: bool) -> None:
        self._secret = make_secret()
        self._socket = "" if with_port else str(folder / "s")
        self._lines: list[str] = []
        place = ["--port", "0"] if with_port else ["--uds", self._socket]
        command = [sys.executable, "-m", "dls", "serve", "--temporary", str(folder)]
        command += ["--session-dir", str(folder / "sessions")]
        # Also at the socket: who knows the secret is told what the engine computes on.
        said = {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}  # a pipe of Windows has the code page's encoding
        environment = {**os.environ, **said, "DLS_SECRET": self._secret}
        self._process = subprocess.Popen(
            [*command, *place, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C is for this program, which then ends the server.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line.rstrip("\n"))
            del self._lines[:-KEPT_LINES]

    def wait(self, phase: Phase) -> Address:
        """Wait until the engine is loaded, and return the server's address; raises the error with which it ended."""
        while True:
            if self._process.poll() is not None:
                self._reader.join()
                raise self._describe_end()
            address = self._address()
            if address is not None:
                status = self._get_status(address)
                if status is not None and "state" not in status:
                    _show_engine(status, phase)
                    return address
                if status:
                    phase.update(str(status.get("text", "")))
            time.sleep(POLL_SECONDS)

    def _address(self) -> Address | None:
        if self._socket:
            return Address(uds=self._socket, credentials=f"{USER}:{self._secret}")
        found = next((match for line in list(self._lines) if (match := PORT.search(line))), None)
        return Address(int(found[1]), credentials=f"{USER}:{self._secret}") if found else None

    @staticmethod
    def _get_status(address: Address) -> dict[str, object] | None:
        with contextlib.suppress(ConnectError, LinkError):
            fields = http.request(address, "GET", "/status").json()
            return fields if isinstance(fields, dict) else None
        return None

    def _describe_end(self) -> DlsError:
        """Return what the server said when it ended."""
        said = {
            prefix: next((line[len(prefix) :] for line in reversed(self._lines) if line.startswith(prefix)), "")
            for prefix in (ERROR_PREFIX, HINT_PREFIX)
        }
        message = said[ERROR_PREFIX] or "The server on this computer ended while it started."
        error = LaunchError(message, said[HINT_PREFIX], "" if said[ERROR_PREFIX] else "\n".join(self._lines[-20:]))
        error.exit_code = self._process.returncode if said[ERROR_PREFIX] else LaunchError.exit_code
        return error

    def close(self) -> None:
        """End the server, and wait for that."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


def _show_engine(status: dict[str, object], phase: Phase) -> None:
    """Show what the engine computes on, and what it has to say, as the licence of weights that were downloaded."""
    device = str(status.get("device", ""))
    phase.result = f"The engine is ready on this computer{device and f' ({device})'}"
    if notice := str(status.get("notice") or ""):
        phase.reporter.note(notice)


@contextlib.contextmanager
def serving(options: Sequence[str], phases: Phases, *, with_port: bool = os.name == "nt") -> Iterator[Address]:
    """Start a server with these options of `dls serve` on this computer, and end it with all that it stored.

    It listens on a Unix socket in a folder that only its user can open; where there are none (Windows), on a loopback
    port that asks for a secret. Raises the error with which it ended.
    """
    folder = _make_folder()
    try:
        with phases("engine", "Starting the engine on this computer") as phase:
            server = LocalServer(folder, options, with_port=with_port)
            try:
                address = server.wait(phase)
            except BaseException:
                server.close()
                raise
        try:
            yield address
        finally:
            server.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_folder() -> Path:
    """Return a new folder that only its user can open, with a path short enough for a socket in it."""
    folder = Path(tempfile.mkdtemp(prefix="dls-segment-"))
    if os.name != "nt" and len(os.fsencode(folder)) > MAX_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="dls-segment-", dir="/tmp"))
    return folder
