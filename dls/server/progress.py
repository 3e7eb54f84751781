"""How the server tells what it does while it gets ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """What an engine does while it gets ready; `total` 0 where it is not known how far that goes."""

    name: str
    text: str
    done: int = 0
    total: int = 0


Tell = Callable[[Step], None]
