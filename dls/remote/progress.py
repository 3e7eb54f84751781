"""How a long piece of work tells what it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Reporter(Protocol):
    """Shows the phases of a connection as they happen."""

    def begin(self, phase: str, text: str) -> None:
        """A phase starts."""

    def update(self, text: str) -> None:
        """The phase that runs has something to say."""

    def done(self, phase: str, text: str, seconds: float) -> None:
        """The phase ended well; `text` says with what."""

    def note(self, text: str) -> None:
        """Something the user should know, whatever phase it is."""

    def link(self, is_open: bool, text: str) -> None:
        """The link was lost, or is back."""


class Silent:
    """Says nothing: the default of the library."""

    def begin(self, phase: str, text: str) -> None:
        """Say nothing."""

    def update(self, text: str) -> None:
        """Say nothing."""

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def link(self, is_open: bool, text: str) -> None:
        """Say nothing."""


@dataclass
class Phase:
    """The phase that runs; set `result` to what it ended with."""

    reporter: Reporter
    result: str = ""

    def update(self, text: str) -> None:
        """Show what the phase is doing."""
        self.reporter.update(text)


@dataclass
class Phases:
    """Runs phases, times them and reports them."""

    reporter: Reporter
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str, text: str) -> Iterator[Phase]:
        """Run one phase; nothing is reported as done when it raises."""
        self.reporter.begin(name, text)
        started = time.monotonic()
        phase = Phase(self.reporter)
        yield phase
        self.seconds[name] = time.monotonic() - started
        self.reporter.done(name, phase.result or text, self.seconds[name])
