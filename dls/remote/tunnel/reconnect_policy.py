"""How often to try to reconnect, and when to give up."""

from __future__ import annotations

import random

from dls.errors import DlsError, HostKeyError, LoginError
from dls.remote.ssh.prompts import CannotAsk

MIN_DELAY, MAX_DELAY = 0.5, 10.0
"""Seconds between two attempts to reconnect, before the jitter is applied."""
MAX_REFUSALS = 3
"""Number of refused logins in a row after which we give up: more could lock the account."""
REFUSED_DELAY = 20.0
"""Seconds to wait after a refused login."""


class ReconnectPolicy:
    """Counts the failed attempts of one reconnection."""

    def __init__(self) -> None:
        self.delay = 0.0
        """Seconds to wait before the next attempt; it grows with each failure."""
        self._refusals = 0

    @property
    def is_refused(self) -> bool:
        """Whether the host refused the last login, so that waiting must not be cut short."""
        return self._refusals > 0

    @property
    def pause(self) -> float:
        """Seconds until the next attempt, after a failed one."""
        return REFUSED_DELAY if self.is_refused else self.delay

    def record_failure(self, error: DlsError) -> None:
        """Count a failed attempt; raises the error when there is no point in another one."""
        if isinstance(error, HostKeyError | CannotAsk):
            raise error
        if isinstance(error, LoginError):
            self._refusals += 1
            if self._refusals >= MAX_REFUSALS:
                raise error
        longest = min(MAX_DELAY, max(MIN_DELAY, self.delay * 2))
        self.delay = longest * random.uniform(0.5, 1.0)  # noqa: S311 - so that many clients do not return at once

    def record_login(self) -> None:
        """Forget the refusals, because the host has accepted a login."""
        self._refusals = 0

    def reset_delay(self) -> None:
        """Make the delays short again."""
        self.delay = 0.0
