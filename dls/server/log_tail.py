"""Keeps the last lines of this process's log in memory, for the page."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator

MAX_LINES = 40
"""Number of lines that are kept."""


class LogTail(logging.Handler):
    """Keeps the last lines, without the tracebacks that may follow them; put it on the root logger."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        """The lines, the oldest first."""
        self._formatter = logging.Formatter()

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what is logged while the context is open."""
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record as a line."""
        time = self._formatter.formatTime(record)
        self.lines.append(f"{time} {record.levelname} {record.getMessage()}")
