"""What passes between the HTTP side and the engine's process."""

from __future__ import annotations

TELL, PONG, DONE, FAILED, LOST = "tell", "pong", "done", "failed", "lost"
"""The kinds of what comes back."""


class EngineFault(Exception):
    """An exception of the engine's libraries, which the HTTP side may not have: its name and its text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.kind}: {self.args[1]}"
