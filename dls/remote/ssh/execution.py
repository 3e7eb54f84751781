"""The execution of one script on a session channel: its text goes in, its output comes out, and silence has a limit."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import paramiko

from dls.errors import DlsError, LinkError
from dls.remote.ssh import login_files
from dls.remote.ssh.exceptions import SSH_EXCEPTIONS
from dls.remote.ssh.shell import OutputCollector

POLL_SECONDS = 0.5
"""Seconds that one read of a script's output waits before it checks the connection and the time limit."""


@dataclass
class Execution:
    """One script on its way through a channel whose login shell has been told to start `sh`."""

    label: str
    """The host's name in errors."""
    channel: paramiko.Channel
    collector: OutputCollector
    text: str
    """The wrapped script."""
    is_active: Callable[[], bool]
    """Whether the connection is open, as far as this side knows."""
    is_alive: Callable[[], bool]
    """Asks the host's SSH server whether it is there."""

    def run(self, timeout: float | None, last_moved: Callable[[], float]) -> tuple[int, str]:
        """Send the text to the shell, feed its output to the collector, and return its status and standard error.

        Bytes that move elsewhere break a silence as output does, and `last_moved` says when they did. Raises HostError
        for a login file that stands in the way or prints without end, LinkError for silence.
        """
        stderr = _StderrReader(self.channel)
        stderr.start()
        begin_by = time.monotonic() + min(login_files.LOGIN_SECONDS, timeout or login_files.LOGIN_SECONDS)
        with contextlib.suppress(OSError):  # a login shell that ends at once closes the channel while we send
            self.channel.sendall(self.text.encode())
            self.channel.shutdown_write()
        self.channel.settimeout(POLL_SECONDS)
        while True:
            limit = timeout if self.collector.has_begun else begin_by - time.monotonic()
            data = self._receive(limit, last_moved)
            if data is None or (not self.collector.has_begun and time.monotonic() > begin_by):
                raise self._silence(timeout)
            if not data:
                break
            self.collector.feed(data)
            if self.collector.is_too_large:
                raise login_files.endless_error(self.label, self.collector, self.text)
        while stderr.is_alive() or not self.channel.exit_status_ready():
            stderr.join(POLL_SECONDS)
            self.channel.status_event.wait(POLL_SECONDS)
        return self.channel.recv_exit_status(), stderr.text

    def _receive(self, timeout: float | None, last_moved: Callable[[], float]) -> bytes | None:
        """Return the next output, b"" at its end, and None when none came within so many seconds."""
        # Waits in short steps: on Windows Ctrl-C can't interrupt an unbounded wait, and a lost link must be noticed.
        started = time.monotonic()
        while True:
            try:
                return self.channel.recv(65536)
            except TimeoutError:
                if timeout is not None and time.monotonic() - max(started, last_moved()) >= timeout:
                    return None
                if not self.is_active():
                    return b""

    def _silence(self, timeout: float | None) -> DlsError:
        """Return the error for a script that says nothing: a login file waits, or the host or the link is busy."""
        seconds = login_files.LOGIN_SECONDS if timeout is None else timeout
        if not self.collector.has_begun and seconds >= login_files.LOGIN_SECONDS and self.is_alive():
            return login_files.waiting_error(self.label, self.collector, self.text)
        return LinkError(
            f"{self.label} said nothing for {seconds:.0f} s.", "Is the host very busy? Run the command again."
        )


class _StderrReader(threading.Thread):
    """Reads standard error in parallel to standard output: a stream that nobody reads would block the script."""

    def __init__(self, channel: paramiko.Channel) -> None:
        super().__init__(name="dls-stderr", daemon=True)
        self._channel = channel
        self.text = ""

    def run(self) -> None:
        while True:
            try:
                data = self._channel.recv_stderr(65536)
            except TimeoutError:
                if self._channel.closed:
                    return
                continue
            except SSH_EXCEPTIONS:
                return
            if not data:
                return
            self.text = (self.text + data.decode(errors="replace"))[-20000:]
