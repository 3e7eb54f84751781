"""What an installer on a host is given that reaches no internet by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _unchanged(text: str) -> str:
    return text


@dataclass(frozen=True)
class Provision:
    """How the installer runs there; by default as on a host that has internet."""

    wrap: Callable[[str], str] = _unchanged
    """Returns a script as it has to run; the text may hold secrets, and goes over standard input alone."""
    redact: Callable[[str], str] = _unchanged
    """Returns what the installer says without the secrets."""
    explain: Callable[[], str] = str
    """Returns a sentence about what did not come, and why; empty where nobody knows."""
    last_moved: Callable[[], float] | None = None
    """When bytes last moved, by `time.monotonic`: an installer that is silent meanwhile is not stuck."""


OWN_INTERNET = Provision()
"""What an installer is given on a host that has internet: nothing."""
