"""Until when the request of an official client is held: the client gives up at a time of its own, and then for good."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Deadline:
    """The time by which a request has to be sent; past it nothing is sent any more.

    Until the request has been read to its end it ends `seconds` after the last byte that moved. From then on it is at
    most `longest` seconds away, and with `longest` above `seconds` it still moves with the bytes until then. The answer
    is waited for `grace` seconds longer: the server has the same seconds, and says by itself what takes so long.
    """

    def __init__(
        self, seconds: float, longest: float, grace: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._seconds = seconds
        self._longest = longest
        self._grace = grace
        self._limit = math.inf
        self._end = 0.0
        self.extend()

    @property
    def left(self) -> float:
        """Seconds that are left to send something; not above 0 when they have passed."""
        return self._end - self._clock()

    @property
    def left_for_answer(self) -> float:
        """Seconds that are left until the client is told that it took too long."""
        return self.left + self._grace

    def extend(self) -> None:
        """Begin anew, because bytes have moved or the way has to be found again."""
        self._end = min(self._clock() + self._seconds, self._limit)

    def set_limit(self) -> None:
        """Note that the request has been read to its end: its client waits for the answer from now on."""
        if self._limit == math.inf:
            self._limit = self._clock() + self._longest
            self.extend()

    def wait_for_answer(self) -> None:
        """Allow all of the time for the answer, because the request is on its way as a whole."""
        if self._limit < math.inf:
            self._end = self._limit
