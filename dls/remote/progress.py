"""Progress reports of a connection: its phases, their durations, and the interface that shows them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from dls.remote.durations import format_duration

SHOW_SECONDS = 0.5
"""Seconds between two reports of one transfer."""
RATE_STEPS = 10
"""Number of reports over which the rate of a transfer is taken."""


@dataclass(frozen=True)
class UploadProgress:
    """How far an upload is, or how it ended."""

    number: int
    """Number of the upload, which tells several at once apart."""
    total: int
    """Bytes of the request's body."""
    state: str = "begun"
    """One of: begun, sending, resumed, done, failed."""
    sent: int = 0
    """Bytes that the host has, or that are on their way to it."""
    saved: int = 0
    """Bytes that were not sent because the host had them."""
    seconds: float = 0.0
    """Seconds since the upload began."""
    rate: float = 0.0
    """Bytes a second that cross the link."""

    @property
    def left(self) -> float | None:
        """Seconds until the rest is sent, at this rate; None while nobody can say."""
        return (self.total - self.sent) / self.rate if self.rate else None

    @property
    def is_over(self) -> bool:
        """Whether this is the upload's last report."""
        return self.state in ("done", "failed")

    def describe(self) -> str:
        """Return the report as a line of text; an upload of an image is all that is said of it, and no name."""
        size = f"{self.total / 1e6:.0f} MB"
        if self.state == "failed":
            return f"An image of {size} was not sent to its end."
        if self.state == "done" and self.saved >= self.total:
            return f"Not sent: the host has this image of {size} already ({self.seconds:.1f} s)."
        if self.state == "done":
            saved = f", {self.saved / 1e6:.0f} MB of it before the link was cut" if self.saved else ""
            return f"An image of {size} was sent in {self.seconds:.0f} s{saved}."
        if self.state == "resumed":
            return f"The upload of an image goes on at {self.saved / 1e6:.0f} of {size}."
        left = "" if self.left is None else f", {self.left:.0f} s left"
        return f"Sending an image: {self.sent / 1e6:.0f} of {size}, {self.rate / 1e6:.1f} MB/s{left}"


@dataclass(frozen=True)
class Transfer:
    """How far the transfer of the current phase is: a download of the host's, or files that are sent there."""

    what: str
    """What is transferred: `packages`, `weights`, `the parcel`."""
    done: int
    """Bytes transferred."""
    total: int | None = None
    """Bytes in all; None while nobody knows."""
    rate: float = 0.0
    """Bytes a second of late; 0 while nobody can say."""

    @property
    def left(self) -> float | None:
        """Seconds until the end, at this rate; None while nobody can say."""
        return max(0, self.total - self.done) / self.rate if self.total and self.rate else None

    def describe(self) -> str:
        """Return the transfer as a line of text."""
        size = (
            f"{self.done / 1e6:.0f} MB" if self.total is None else f"{self.done / 1e6:.0f} of {format_size(self.total)}"
        )
        rate = f", {self.rate / 1e6:.1f} MB/s" if self.rate else ""
        left = "" if self.left is None else f", {format_duration(self.left)} left"
        return f"{self.what}: {size}{rate}{left}"


def format_size(size: float) -> str:
    """Return a number of bytes for people, in MB or GB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


class Reporter(Protocol):
    """Shows the phases of a connection as they happen."""

    def begin(self, phase: str, text: str) -> None:
        """Show that a phase starts."""

    def update(self, text: str) -> None:
        """Show what the current phase is doing."""

    def transfer(self, transfer: Transfer) -> None:
        """Show how far the transfer of the current phase is; called about twice a second, from any thread."""

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Show that a phase has succeeded; `text` is its result."""

    def note(self, text: str) -> None:
        """Show a message that belongs to no phase."""

    def link(self, is_open: bool, text: str) -> None:
        """Show that the link was lost or is open again."""

    def upload(self, progress: UploadProgress) -> None:
        """Show how far the upload of an image is; called from the threads of the requests, about once a second."""


class Silent:
    """A reporter that shows nothing: the default of the library."""

    def begin(self, phase: str, text: str) -> None:
        """Do nothing."""

    def update(self, text: str) -> None:
        """Do nothing."""

    def transfer(self, transfer: Transfer) -> None:
        """Do nothing."""

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def link(self, is_open: bool, text: str) -> None:
        """Do nothing."""

    def upload(self, progress: UploadProgress) -> None:
        """Do nothing."""


class NotesReporter(Silent):
    """Passes on the notes and the beginning of an installation, and leaves out the other phases."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def begin(self, phase: str, text: str) -> None:
        """Show that something is installed, which can take minutes."""
        if phase == "install":
            self._reporter.note(f"{text} …")

    def note(self, text: str) -> None:
        """Show the note."""
        self._reporter.note(text)


@dataclass
class Phase:
    """The current phase; set `result` to the text to show when it has succeeded."""

    reporter: Reporter
    result: str = ""

    def update(self, text: str) -> None:
        """Show what the phase is doing."""
        self.reporter.update(text)

    def transfer(self, transfer: Transfer) -> None:
        """Show how far the phase's transfer is."""
        show = getattr(self.reporter, "transfer", None)  # reporters of earlier programs have none
        (show or Silent().transfer)(transfer)


@dataclass
class Phases:
    """Runs phases, measures how long each takes, and reports them."""

    reporter: Reporter
    seconds: dict[str, float] = field(default_factory=dict)
    """Duration in seconds of each phase that has succeeded, by its name."""

    @contextmanager
    def __call__(self, name: str, text: str) -> Iterator[Phase]:
        """Run one phase; a phase that raises is not reported as done."""
        self.reporter.begin(name, text)
        started = time.monotonic()
        phase = Phase(self.reporter)
        yield phase
        self.seconds[name] = time.monotonic() - started
        self.reporter.done(name, phase.result or text, self.seconds[name])


class TransferMeter:
    """Counts the bytes of a transfer and shows how far it is: at its beginning, twice a second, and at its end."""

    def __init__(self, phase: Phase, what: str, total: int | None, done: int = 0) -> None:
        self._phase, self._what, self._total = phase, what, total
        self.done = done
        """Bytes so far, those of an earlier attempt too."""
        self._shown = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque([(self._shown, done)], maxlen=RATE_STEPS)
        self.show()

    def add(self, size: int) -> None:
        """Count bytes that were transferred."""
        self.done += size
        if time.monotonic() - self._shown >= SHOW_SECONDS:
            self.show()

    def show(self) -> None:
        """Show how far the transfer is, with the rate of the last seconds."""
        self._shown = time.monotonic()
        since, before = self._recent[0]
        seconds = self._shown - since
        rate = (self.done - before) / seconds if seconds > 0 else 0.0
        self._recent.append((self._shown, self.done))
        total = None if self._total is None else max(self._total, self.done)  # one that was too small grows
        self._phase.transfer(Transfer(self._what, self.done, total, rate))


def show_download(phase: Phase) -> Callable[[str, int, int], None]:
    """Return what shows a download as the phase's transfer, where its size is known, and else as text.

    It is called with a line of text, the bytes so far and the bytes in all, 0 where nobody knows.
    """
    meters: list[TransferMeter] = []

    def show(text: str, done: int, total: int) -> None:
        if not total:
            phase.update(text)
            return
        if not meters:
            meters.append(TransferMeter(phase, "weights", total, done))
        meters[0].add(done - meters[0].done)

    return show
