"""The messages between the HTTP side and the engine's process.

The HTTP side sends (number, command, arguments), and the engine's process answers (number, kind, value).
"""

from __future__ import annotations

PING, QUIT = "ping", "quit"
"""The commands that the process handles itself; every other command is a method of its engine or a segmentation."""
PROGRESS, PONG, DONE, FAILED, LOST = "progress", "pong", "done", "failed", "lost"
"""The kinds of answers."""


class EngineFault(Exception):
    """An exception of an engine's library, as its class name and text: the HTTP side may not have that library."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.kind}: {self.args[1]}"
