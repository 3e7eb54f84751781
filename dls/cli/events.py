"""Events as JSON lines on standard output, for programs that run dls."""

from __future__ import annotations

import json
import sys
from typing import Any, Protocol

from dls.cli.text import printable
from dls.remote.progress import Reporter, Transfer, UploadProgress


class Closeable(Reporter, Protocol):
    """A reporter that shows something which has to be stopped."""

    def close(self) -> None:
        """Stop it."""


def write_event(event: str, **fields: Any) -> None:
    """Write an event as one line of JSON to standard output."""
    sys.stdout.write(json.dumps(_printable_value({"event": event, **fields})) + "\n")
    sys.stdout.flush()


def _printable_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {printable(key): _printable_value(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_printable_value(each) for each in value]
    return printable(value) if isinstance(value, str) else value


class JsonReporter:
    """Writes events as JSON lines to standard output, and shows them on the console too."""

    def __init__(self, reporter: Closeable) -> None:
        self._console = reporter
        self._phase = ""

    def begin(self, phase: str, text: str) -> None:
        """Show on the console that a phase has started."""
        self._phase = phase
        self._console.begin(phase, text)

    def update(self, text: str) -> None:
        """Show the progress of the phase on the console; that of the queue, which can take hours, is written too."""
        if self._phase == "queue":
            write_event("queue", text=text)
        self._console.update(text)

    def transfer(self, transfer: Transfer) -> None:
        """Write and show how far the phase's transfer is."""
        left = None if transfer.left is None else round(transfer.left, 1)
        fields = {"what": transfer.what, "bytes": transfer.done, "total": transfer.total, "rate": round(transfer.rate)}
        write_event("transfer", phase=self._phase, **fields, left=left)
        self._console.transfer(transfer)

    def done(self, phase: str, text: str, seconds: float) -> None:
        """Write and show the result of a phase."""
        write_event("phase", phase=phase, text=text, seconds=round(seconds, 3))
        self._console.done(phase, text, seconds)

    def note(self, text: str) -> None:
        """Write and show a message."""
        write_event("note", text=text)
        self._console.note(text)

    def link(self, is_open: bool, text: str) -> None:
        """Write and show that the link was lost or is open again."""
        write_event("link", open=is_open, text=text)
        self._console.link(is_open, text)

    def upload(self, progress: UploadProgress) -> None:
        """Write and show how far the upload of an image is."""
        write_event(
            "upload",
            number=progress.number,
            state=progress.state,
            bytes=progress.total,
            sent=progress.sent,
            saved=progress.saved,
            seconds=round(progress.seconds, 3),
            rate=round(progress.rate),
            left=None if progress.left is None else round(progress.left, 1),
        )
        self._console.upload(progress)

    def close(self) -> None:
        """Stop the console's spinner."""
        self._console.close()
