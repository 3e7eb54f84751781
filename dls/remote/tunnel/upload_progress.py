"""Counts how far the upload of an image is. No sockets, no threads: the time is passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from dls.remote.progress import UploadProgress

RECENT = 8
"""Number of pieces by which it is judged how long the rest takes: the first ones only fill buffers."""
STEP_SECONDS = 1.0
"""Seconds between two reports of one upload."""


class Meter:
    """Counts the bytes of one upload, and says when it is time to report."""

    def __init__(self, number: int, total: int, now: float) -> None:
        self._begun = self._reported = self._resumed = now
        self._crossed = 0
        """Bytes that crossed the link since it was last resumed."""
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT + 1)
        """Times at which the last pieces had been sent, and how many bytes had crossed then."""
        self.progress = UploadProgress(number, total)
        self._recent.append((now, 0))

    def add(self, size: int, now: float) -> bool:
        """Count bytes that were sent; return whether a report is due."""
        self._crossed += size
        self._recent.append((now, self._crossed))
        seconds = now - self._resumed
        self.progress = replace(
            self.progress,
            state="sending",
            sent=min(self.progress.sent + size, self.progress.total),
            seconds=now - self._begun,
            rate=self._crossed / seconds if seconds > 0 else 0.0,
        )
        if now - self._reported < STEP_SECONDS:
            return False
        self._reported = now
        return True

    def restart(self, held: int, now: float) -> None:
        """Begin again where the host has so many bytes."""
        self._crossed, self._resumed, self._reported = 0, now, now
        self._recent.clear()
        self._recent.append((now, 0))
        self.progress = replace(
            self.progress, state="resumed" if held else "sending", sent=held, saved=held, seconds=now - self._begun
        )

    def finish(self, *, done: bool, now: float) -> None:
        """End the upload; one that is done has all of its bytes on the host."""
        sent = self.progress.total if done else self.progress.sent
        self.progress = replace(self.progress, state="done" if done else "failed", sent=sent, seconds=now - self._begun)

    def skip(self, size: int) -> None:
        """Note that the host has so many bytes that are not sent."""
        self.progress = replace(self.progress, saved=size)

    def seconds_left(self, now: float) -> float:
        """Return how long the rest will take at the latest rate; 0 before anything is sent, and where all is."""
        began, before = self._recent[0]
        left, crossed = self.progress.total - self.progress.sent, self._crossed - before
        return left * (now - began) / crossed if crossed else 0.0
