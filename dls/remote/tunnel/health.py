"""Checks whether the server and the connection to it still work."""

from __future__ import annotations

import contextlib
import enum
import threading
import time

from dls.errors import DlsError
from dls.remote.host import status
from dls.remote.ssh.connection import Connection
from dls.remote.tunnel.endpoint import Endpoint

CHECK_SECONDS = 5.0
"""Seconds between two checks."""
LINK_DEADLINE = 10.0
"""Seconds without any answer after which the link counts as lost. paramiko's own keep-alive took 947 s, or never."""
AWAKE_DEADLINE = 3.0
"""The deadline in seconds of the first check after the computer slept, when the link is most likely lost."""
HUNG_SECONDS = 20.0
"""Seconds without an answer after which a server whose host does answer counts as hung."""
STEP_SECONDS = 0.2
"""Seconds between two looks at whether a check was cancelled."""


class Health(enum.Enum):
    """The result of a check."""

    HEALTHY = "healthy"
    LINK_LOST = "the connection does not carry data"
    SERVER_GONE = "the server does not listen"
    SERVER_HUNG = "the server listens and does not answer"


class _Task(threading.Thread):
    """A request that can take arbitrarily long, in a thread of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.ended = threading.Event()
        self.is_answered = False

    def ask(self) -> bool:
        raise NotImplementedError

    def run(self) -> None:
        with contextlib.suppress(DlsError):
            self.is_answered = self.ask()
        self.ended.set()

    def wait(self, seconds: float, cancelled: threading.Event) -> bool:
        """Wait until the request ended; False when the time is over or the check was cancelled."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not cancelled.is_set():
            if self.ended.wait(min(left, STEP_SECONDS)):
                return True
        return self.ended.is_set()


class _StatusRequest(_Task):
    """Asks the server for its status, and whether it is the one that its state file describes."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("dls-status")
        self._endpoint = endpoint

    def ask(self) -> bool:
        return bool(status.identify(self._endpoint.connection, self._endpoint.state))


class _Keepalive(_Task):
    """Sends a keep-alive request, which the host's SSH server answers whatever our server does."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("dls-keepalive")
        self._connection = connection

    def ask(self) -> bool:
        return self._connection.answers_keepalive()


def is_host_alive(connection: Connection, deadline: float, cancelled: threading.Event) -> bool:
    """Whether the host's SSH server answers within `deadline` seconds."""
    keepalive = _Keepalive(connection)
    keepalive.start()
    return keepalive.wait(deadline, cancelled) and keepalive.is_answered


class HealthCheck:
    """One check of an endpoint: asks the server for its status and, when it does not answer, its host.

    `cancelled` ends a check early; the result is HEALTHY then, so that nobody acts on it.
    """

    def __init__(self, endpoint: Endpoint, cancelled: threading.Event) -> None:
        self._connection = endpoint.connection
        self._cancelled = cancelled
        self._request = _StatusRequest(endpoint)

    def run(self, deadline: float = LINK_DEADLINE) -> Health:
        """Check, with `deadline` seconds for the link to answer."""
        if not self._connection.is_active():
            return Health.LINK_LOST
        self._request.start()
        started = time.monotonic()
        if self._request.wait(deadline / 2, self._cancelled):
            return self._judge()
        keepalive = _Keepalive(self._connection)
        keepalive.start()
        if self._request.wait(started + deadline - time.monotonic(), self._cancelled) or self._cancelled.is_set():
            return self._judge()
        # Any packet counts: behind a large upload, an answer can take long.
        if not (keepalive.is_answered or self._connection.last_heard > started):
            return Health.LINK_LOST
        return self._watch_silent_server(started + HUNG_SECONDS)

    def _watch_silent_server(self, deadline: float) -> Health:
        while time.monotonic() < deadline:
            keepalive = _Keepalive(self._connection)
            keepalive.start()
            if self._request.wait(CHECK_SECONDS, self._cancelled) or self._cancelled.is_set():
                return self._judge()
            if not (keepalive.is_answered and self._connection.is_active()):
                return Health.LINK_LOST
        return Health.SERVER_HUNG

    def _judge(self) -> Health:
        if self._request.is_answered or self._cancelled.is_set():
            return Health.HEALTHY
        return Health.SERVER_GONE if self._connection.is_active() else Health.LINK_LOST

    def is_answered_within(self, seconds: float) -> bool:
        """Wait for the answer to the request that `run` sent."""
        return self._request.wait(seconds, self._cancelled) and self._request.is_answered
