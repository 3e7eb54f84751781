"""A channel of an SSH connection (RFC 4254, section 5), with one error for everything that can go wrong with it."""

from __future__ import annotations

from dls.remote.ssh import lean_paramiko  # noqa: F401 - before paramiko

# isort: split

import contextlib
import io
import time
from typing import Any

import paramiko

from dls.remote.ssh.exceptions import SSH_EXCEPTIONS, ChannelError, channel_error, translate_errors

__all__ = ["Channel", "ChannelError"]


class Channel:
    """A stream of bytes to a socket or a port on the host, with those methods of a socket that `http.client` calls."""

    def __init__(self, raw: paramiko.Channel) -> None:
        self.raw = raw
        self._transport: Any = raw.get_transport()

    @property
    def is_open(self) -> bool:
        """Whether neither side has closed the channel, as far as this side knows."""
        return not (self.raw.closed or self.raw.eof_received)

    @property
    def is_answered(self) -> bool:
        """Whether data wait to be read, or the other side has sent the end of its stream."""
        return bool(self.raw.recv_ready() or self.raw.eof_received or self.raw.closed)

    def settimeout(self, seconds: float | None) -> None:
        """Limit how long `recv` and `sendall` may wait; None for no limit."""
        self.raw.settimeout(seconds)

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of the data; raises ChannelError."""
        self._transport.last_request = time.monotonic()
        with translate_errors(channel_error):
            # paramiko takes a memoryview too, whatever its annotation says, and copies only the part that it sends.
            self.raw.sendall(data)  # type: ignore[arg-type]

    def recv(self, size: int) -> bytes:
        """Wait for data and return up to `size` bytes, or b"" at the end of the stream; raises ChannelError."""
        with translate_errors(channel_error):
            return self.raw.recv(size)

    def shutdown_write(self) -> None:
        """Send the end of the stream: nothing more is sent after it; raises ChannelError."""
        with translate_errors(channel_error):
            self.raw.shutdown_write()

    def makefile(self, mode: str = "rb", buffering: int = -1) -> io.BufferedReader:
        """Return a file that reads from the channel, as `http.client` needs it."""
        return io.BufferedReader(_ChannelReader(self))

    def close(self) -> None:
        """Close the channel; closing it twice does no harm."""
        with contextlib.suppress(*SSH_EXCEPTIONS):
            self.raw.close()


class _ChannelReader(io.RawIOBase):
    """A raw file that reads from a channel; closing the file leaves the channel open."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)
