"""Progress reports of a connection: its phases, their durations, and the interface that shows them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Reporter(Protocol):
    """Shows the phases of a connection as they happen."""

    def begin(self, phase: str, text: str) -> None:
        """Show that a phase starts."""

    def update(self, text: str) -> None:
        """Show what the current phase is doing."""

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Show that a phase has succeeded; `text` is its result."""

    def note(self, text: str) -> None:
        """Show a message that belongs to no phase."""

    def link(self, is_open: bool, text: str) -> None:
        """Show that the link was lost or is open again."""


class Silent:
    """A reporter that shows nothing: the default of the library."""

    def begin(self, phase: str, text: str) -> None:
        """Do nothing."""

    def update(self, text: str) -> None:
        """Do nothing."""

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def link(self, is_open: bool, text: str) -> None:
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
