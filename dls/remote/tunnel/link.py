"""The link between the local port and the server, as a state machine.

`TRANSITIONS` holds every change of state. `Link.handle` is the only method that makes one, under the link's lock: the
supervisor passes it the events, and the proxy waits for the state that it needs.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from dls.errors import DlsError, LinkError
from dls.remote.ssh.channel import Channel
from dls.remote.tunnel.channel_pool import POOL_SIZE, ChannelPool
from dls.remote.tunnel.endpoint import Endpoint
from dls.remote.tunnel.traffic import Traffic

CLOSED = "The connection is closed."
"""The reason that a request meets after the user has closed the session."""


class LinkState(enum.Enum):
    """Whether requests can be sent to the server."""

    OPEN = "open"
    LOST = "lost"
    """The connection or the server was lost; the supervisor is bringing it back."""
    ASLEEP = "asleep"
    """The server ended on purpose and nobody needs it; the next request starts it again."""
    CLOSED = "closed"
    """The user closed the session, or nobody tries to reconnect any more: requests are refused at once."""


@dataclass(frozen=True)
class Connected:
    """The endpoint answers requests."""

    endpoint: Endpoint


@dataclass(frozen=True)
class ConnectionLost:
    """The SSH connection was lost."""

    reason: str


@dataclass(frozen=True)
class ServerLost:
    """The server on the host does not answer, although its host does."""

    reason: str


@dataclass(frozen=True)
class ServerStopped:
    """The server ended on purpose; the endpoint's connection stays."""

    endpoint: Endpoint
    reason: str


@dataclass(frozen=True)
class Failed:
    """An attempt to reconnect failed."""

    reason: str
    delay: float = 0.0
    """Seconds until the next attempt."""


@dataclass(frozen=True)
class GaveUp:
    """There is no point in another attempt to reconnect."""

    reason: str


@dataclass(frozen=True)
class Closed:
    """The user closed the session."""

    reason: str = CLOSED


LinkEvent = Connected | ConnectionLost | ServerLost | ServerStopped | Failed | GaveUp | Closed

TRANSITIONS: dict[LinkState, dict[type[LinkEvent], LinkState]] = {
    LinkState.OPEN: {
        Connected: LinkState.OPEN,
        ConnectionLost: LinkState.LOST,
        ServerLost: LinkState.LOST,
        ServerStopped: LinkState.ASLEEP,
        Failed: LinkState.LOST,
        GaveUp: LinkState.CLOSED,
        Closed: LinkState.CLOSED,
    },
    LinkState.LOST: {
        Connected: LinkState.OPEN,
        ConnectionLost: LinkState.LOST,
        ServerLost: LinkState.LOST,
        ServerStopped: LinkState.ASLEEP,
        Failed: LinkState.LOST,
        GaveUp: LinkState.CLOSED,
        Closed: LinkState.CLOSED,
    },
    LinkState.ASLEEP: {
        Connected: LinkState.OPEN,
        ConnectionLost: LinkState.LOST,
        ServerStopped: LinkState.ASLEEP,
        Failed: LinkState.LOST,
        GaveUp: LinkState.CLOSED,
        Closed: LinkState.CLOSED,
    },
    LinkState.CLOSED: {
        Closed: LinkState.CLOSED,
    },
}
"""The next state for each state and event. An event that is missing changes nothing and raises an error."""

NOTICE_SECONDS = 5.0
"""Seconds for which a request tries to open a channel at least: the supervisor may not have noticed a loss yet."""
RETRY_SECONDS = 0.2
"""Seconds between two attempts to open a channel while the state is still OPEN."""


class LinkClosed(LinkError):
    """The session was closed, so that the link takes no further events."""


def next_state(state: LinkState, event: LinkEvent) -> LinkState:
    """Look up the state that follows; raises LinkClosed in CLOSED, and RuntimeError where the table has no entry."""
    following = TRANSITIONS[state].get(type(event))
    if following is not None:
        return following
    if state is LinkState.CLOSED:
        raise LinkClosed(Closed().reason)
    raise RuntimeError(f"the link does not allow {type(event).__name__} while it is {state.value}")


def _close_all(channels: Iterable[Channel]) -> None:
    for channel in channels:
        channel.close()


class Link:
    """Holds the state of the link, the endpoint, and the channels to it.

    `wake` is set when the supervisor should check at once: a request waits, or has failed.
    """

    def __init__(self, endpoint: Endpoint, pool_size: int = POOL_SIZE) -> None:
        self.wake = threading.Event()
        self.pool = ChannelPool(pool_size, self.suspect)
        self.pool.set_endpoint(endpoint)
        self._endpoint = endpoint
        self._state = LinkState.OPEN
        self._reason = ""
        self._since = time.time()
        self._next_try: float | None = None
        self._waiting = 0
        self._demand = False
        self._changed = threading.Condition()
        self.restored = 0
        """How often it was open again after it was lost."""
        self.traffic = Traffic()

    @property
    def endpoint(self) -> Endpoint:
        """The server and the connection to it; the last ones while the link is not open."""
        return self._endpoint

    @property
    def state(self) -> LinkState:
        """The current state."""
        return self._state

    @property
    def reason(self) -> str:
        """Why the link is not open, in a sentence; empty while it is open."""
        return self._reason

    @property
    def since(self) -> float:
        """When the current state began, in seconds since 1970."""
        return self._since

    @property
    def next_try(self) -> float | None:
        """When the next attempt to reconnect begins, in seconds since 1970; None where none is waited for."""
        return self._next_try

    @property
    def waiting(self) -> int:
        """Number of requests that wait for the link to be open."""
        return self._waiting

    @property
    def demand(self) -> bool:
        """Whether a real request (not `/status`) is waiting."""
        return self._demand

    def handle(self, event: LinkEvent) -> None:
        """Change the state as `TRANSITIONS` says; raises LinkClosed once the link was closed."""
        with self._changed:
            before, self._state = self._state, next_state(self._state, event)
            if self._state is not before:
                self._since = time.time()
                self.restored += before is LinkState.LOST and self._state is LinkState.OPEN
            self._next_try = time.time() + event.delay if isinstance(event, Failed) and event.delay else None
            if isinstance(event, Connected | ServerStopped):
                self._endpoint, self._demand = event.endpoint, False
            self._reason = "" if isinstance(event, Connected) else event.reason
            dropped = self.pool.set_endpoint(self._endpoint if self._state is LinkState.OPEN else None)
            self._changed.notify_all()
        if dropped:  # closing one waits for a link that carries nothing
            threading.Thread(target=_close_all, args=(dropped,), name="dls-dropped-channels", daemon=True).start()
        self.pool.refill()

    def open_channel(self, timeout: float) -> Channel:
        """Return a channel to the server, after waiting up to `timeout` seconds for the link to be open.

        With a timeout of 0, as `/status` has, a server that is asleep is not started, and a channel to an open link is
        tried once only. Raises LinkError.
        """
        started = time.monotonic()
        deadline = started + timeout
        while True:
            endpoint = self._wait_until_open(deadline, is_demand=timeout > 0)
            channel = self.pool.take() or self._try_to_open(endpoint, is_demand=timeout > 0)
            if channel is not None:
                self.pool.refill()
                return channel
            if timeout <= 0 or time.monotonic() > max(deadline, started + NOTICE_SECONDS):
                raise LinkError(self._reason or "The server does not take requests.")

    def _wait_until_open(self, deadline: float, *, is_demand: bool) -> Endpoint:
        with self._changed:
            self._waiting += is_demand
            try:
                while self._state is not LinkState.OPEN:
                    self._wake_supervisor(is_demand)
                    left = deadline - time.monotonic()
                    if self._state is LinkState.CLOSED or left <= 0:
                        raise LinkError(self._reason)
                    self._changed.wait(min(left, 1.0))
                return self._endpoint
            finally:
                self._waiting -= is_demand

    def _try_to_open(self, endpoint: Endpoint, *, is_demand: bool) -> Channel | None:
        try:
            return endpoint.open()
        except DlsError:
            # The connection or the server was lost, and the supervisor has not noticed yet.
            with self._changed:
                self._wake_supervisor(is_demand)
                self._changed.wait(RETRY_SECONDS)
            return None

    def _wake_supervisor(self, is_demand: bool) -> None:
        self._demand = self._demand or is_demand
        self.wake.set()

    def suspect(self) -> None:
        """Report that a request or a channel failed, so that the supervisor checks at once."""
        self.wake.set()
