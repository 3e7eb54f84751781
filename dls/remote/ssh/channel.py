"""A channel of an SSH connection (RFC 4254, section 5), with one error for everything that can go wrong with it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import paramiko

from dls.errors import LinkError

CHANNEL_EXCEPTIONS = (OSError, EOFError, paramiko.SSHException)
"""What paramiko raises at a channel whose connection or far end is gone; `TimeoutError` is an `OSError`."""


class ChannelError(LinkError):
    """The channel was closed, by the far end or with its connection, or it took too long."""


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except CHANNEL_EXCEPTIONS as error:
        raise ChannelError(f"The channel to the host was closed ({type(error).__name__}).") from error


class Channel:
    """A stream of bytes to a socket or a port on the host; as much of a socket as `http.client` needs."""

    def __init__(self, raw: paramiko.Channel) -> None:
        self.raw = raw

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed it, as far as this side knows."""
        return not (self.raw.closed or self.raw.eof_received)

    def settimeout(self, seconds: float | None) -> None:
        """Limit how long `recv` and `sendall` may wait; None for no limit."""
        self.raw.settimeout(seconds)

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of the data; raises ChannelError."""
        with _translated():
            # paramiko takes a view too, whatever the annotation says, and copies no more of it than it sends.
            self.raw.sendall(data)  # type: ignore[arg-type]

    def recv(self, size: int) -> bytes:
        """Return what has come, at most so many bytes, waiting for some; nothing at the end. Raises ChannelError."""
        with _translated():
            return self.raw.recv(size)

    def shutdown_write(self) -> None:
        """Say that nothing more is sent; raises ChannelError."""
        with _translated():
            self.raw.shutdown_write()

    def makefile(self, mode: str = "rb", buffering: int = -1) -> io.BufferedReader:
        """Return a file that reads from the channel; `http.client` asks for one."""
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """Close it; one that is closed already stays so."""
        with contextlib.suppress(*CHANNEL_EXCEPTIONS):
            self.raw.close()


class _Reader(io.RawIOBase):
    """Reads from a channel; closing it leaves the channel open."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)
