"""A channel for much data, which gives way to requests over the same connection."""

from __future__ import annotations

import paramiko

from dls.remote.ssh.channel import Channel, ChannelError
from dls.remote.ssh.exceptions import channel_error, translate_errors
from dls.remote.ssh.transport import optimal_window

POLL_SECONDS = 0.5
"""Seconds after which a wait for the host looks whether the channel is still open."""
MIN_UNREAD = 192 << 10
"""Bytes of one channel that may wait in the host's SSH server: more would only let requests wait behind them."""
SHORT_TRIP = 0.002
"""Seconds of a round trip up to which those bytes keep a line of a gigabit busy."""


class BulkChannel(Channel):
    """A channel that is sent to piece by piece, as much as the host takes (RFC 4254, section 5.2).

    OpenSSH gives back what it has passed on after each 96 KB. So the window tells how much waits there, and less than
    the whole of it is used where the round trip is short. Other servers give it back late: all of it is used there.
    """

    def __init__(self, raw: paramiko.Channel) -> None:
        super().__init__(raw)
        trip = self._transport.round_trip
        unread = max(MIN_UNREAD, optimal_window(trip) if trip > SHORT_TRIP else 0)
        is_prompt = "OpenSSH" in self._transport.remote_version
        self._least = max(0, raw.out_window_size - unread) if is_prompt else 0

    @property
    def is_closed(self) -> bool:
        """Whether the channel is closed in both directions."""
        return bool(self.raw.closed)

    @property
    def last_request(self) -> float:
        """When a part of a request was sent over the connection last, by `time.monotonic`."""
        return float(self._transport.last_request)

    def wait_until_taken(self) -> None:
        """Wait until the host takes more; raises ChannelError where the channel is closed."""
        raw = self.raw
        with raw.lock:
            while raw.out_window_size <= self._least and not (raw.closed or raw.eof_sent):
                raw.out_buffer_cv.wait(POLL_SECONDS)
            if raw.closed or raw.eof_sent:
                raise ChannelError("The channel to the host was closed.")

    def send(self, data: bytes | memoryview) -> int:
        """Send as much of the data as the host takes, and return how much that is; raises ChannelError."""
        with translate_errors(channel_error):
            return self.raw.send(data)  # type: ignore[arg-type]
