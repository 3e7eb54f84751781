"""Waits for what another thread finds out."""

from __future__ import annotations

from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")

STEP_SECONDS = 0.25
"""Seconds of one wait: on Windows, Ctrl-C does not interrupt a wait without end."""


def wait_for(future: Future[T]) -> T:
    """Return the result when it is there, or raise the error that came instead; Ctrl-C ends the wait."""
    while not future.done():
        wait([future], STEP_SECONDS)
    return future.result()
