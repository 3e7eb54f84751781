"""How long the engine took for the last prompt: for the people who wait for it, so nothing else of it is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class PromptTimes:
    """The kind of the last prompt, the engine's seconds for it, and when that was, on the steady clock."""

    kind: str = ""
    seconds: float = 0.0
    ended: float = 0.0

    def measure(self, kind: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the engine's work for a prompt of this kind, in the engine's thread, and keep how long it took."""
        started = time.monotonic()
        result = work(*args, **kwargs)
        self.kind, self.ended = kind, time.monotonic()
        self.seconds = self.ended - started
        return result
