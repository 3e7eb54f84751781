"""The way to the server as it is now: open, lost, or not needed; and channels that are opened ahead of need."""

from __future__ import annotations

import enum
import threading
import time
from dataclasses import dataclass

from dls.contract import ServerState
from dls.errors import DlsError, LinkError
from dls.remote.host import status
from dls.remote.ssh.channel import Channel
from dls.remote.ssh.connection import Connection

AHEAD = 3
"""Channels kept open for requests to come: opening one costs a round trip, and each request of ITK-SNAP needs one."""
STALE_SECONDS = 300.0
"""A channel opened so long ago is not used any more."""

NOTICE_SECONDS = 5.0
"""How long it may take at most until a way that is not open any more is known to be so."""


class LinkState(enum.Enum):
    """How the way to the server is."""

    OPEN = "open"
    LOST = "lost"
    ASLEEP = "asleep"
    """The server ended because nobody needed it, or was told to; the next request brings it back."""
    CLOSED = "closed"


@dataclass(frozen=True)
class Endpoint:
    """The far end: the connection that leads there and the server's state."""

    connection: Connection
    state: ServerState
    version: str
    """Of the protocol, as the server says it to ITK-SNAP."""

    def open(self) -> Channel:
        """Open a channel to the server, or raise a DlsError."""
        return status.open_channel(self.connection, self.state)


class Link:
    """What stands between the local port and the server; the keeper changes it, the relay uses it."""

    def __init__(self, end: Endpoint) -> None:
        self.end = end
        self.way = LinkState.OPEN
        self.why = ""
        """What is wrong, in a sentence."""
        self.wanted = False
        """Somebody waits for the way with more than a question whether the server is there."""
        self.stirred = threading.Event()
        """Somebody waits for the way, or has reason to doubt it: the keeper looks at once."""
        self._changed = threading.Condition()
        self._ahead: list[tuple[float, Channel]] = []
        self._refilling = False

    def opened(self, end: Endpoint) -> None:
        """The way is open (again)."""
        with self._changed:
            self._drop()
            self.end, self.way, self.why, self.wanted = end, LinkState.OPEN, "", False
            self._changed.notify_all()
        self._refill()

    def lost(self, way: LinkState, why: str) -> None:
        """The way is not open any more."""
        with self._changed:
            self._drop()
            if self.way is not LinkState.CLOSED:
                self.way, self.why = way, why
            self._changed.notify_all()

    def _drop(self) -> None:
        dropped, self._ahead = self._ahead, []
        for _, channel in dropped:
            channel.close()

    def take(self, wait: float) -> Channel:
        """Return a channel to the server, waiting for the way to be open; raises LinkError when it is not in time.

        Who does not wait at all only asks, and brings back no server that ended.
        """
        started = time.monotonic()
        deadline = started + wait
        while True:
            with self._changed:
                while self.way is not LinkState.OPEN:
                    self._stir(wait > 0)
                    left = deadline - time.monotonic()
                    if self.way is LinkState.CLOSED or left <= 0:
                        raise LinkError(self.why or "The connection is closed.")
                    self._changed.wait(min(left, 1.0))
                channel = self._usable()
                end = self.end
            if channel is None:
                channel = self._opened_now(end, wait > 0)
            if channel is not None:
                self._refill()
                return channel
            if time.monotonic() > max(deadline, started + NOTICE_SECONDS):
                raise LinkError(self.why or "The server does not take requests.")

    def _usable(self) -> Channel | None:
        while self._ahead:
            since, channel = self._ahead.pop(0)
            if time.monotonic() - since < STALE_SECONDS and channel.is_open:
                return channel
            channel.close()
        return None

    def _opened_now(self, end: Endpoint, is_wanted: bool) -> Channel | None:
        try:
            return end.open()
        except DlsError:
            # The link or the server has gone, and the keeper has not noticed yet.
            with self._changed:
                self._stir(is_wanted)
                self._changed.wait(0.2)
            return None

    def _stir(self, is_wanted: bool) -> None:
        self.wanted = self.wanted or is_wanted
        self.stirred.set()

    def _refill(self) -> None:
        with self._changed:
            if self._refilling or self.way is not LinkState.OPEN or len(self._ahead) >= AHEAD:
                return
            self._refilling = True
        threading.Thread(target=self._open_ahead, name="dls-ahead", daemon=True).start()

    def _open_ahead(self) -> None:
        try:
            while True:
                with self._changed:
                    end = self.end
                    if self.way is not LinkState.OPEN or len(self._ahead) >= AHEAD:
                        return
                channel = end.open()
                with self._changed:
                    if end is self.end and self.way is LinkState.OPEN:
                        self._ahead.append((time.monotonic(), channel))
                    else:
                        channel.close()
        except DlsError:
            self.stirred.set()
        finally:
            self._refilling = False

    def doubt(self) -> None:
        """Say that a request was cut, so that the keeper looks at once."""
        self.stirred.set()

    def close(self) -> None:
        """Let nobody wait any longer."""
        self.lost(LinkState.CLOSED, "The connection is closed.")
        with self._changed:
            self.way = LinkState.CLOSED
            self._changed.notify_all()
