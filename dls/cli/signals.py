"""Signals that end a command as cleanly as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interrupt_on_termination() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, and on SIGHUP or SIGBREAK when the terminal closes."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # An ignored signal stays ignored: nohup ignores SIGHUP so that the command outlives its terminal.
    names = [
        name
        for name in ("SIGTERM", "SIGHUP", "SIGBREAK")
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN
    ]
    before = {name: signal.signal(getattr(signal, name), interrupt) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def end_with_standard_input() -> None:
    """Raise SIGTERM in this process once nobody can write to its standard input any more.

    So a server ends with the program that started it, however that ends.
    """

    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(sys.stdin.fileno(), 4096):
                pass
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
