"""The engines, and which one a name means."""

from __future__ import annotations

from dls.errors import EngineError
from dls.server.engines.base import Engine

NAMES = ("region",)


def make(name: str) -> Engine:
    """Return the engine of that name, or raise EngineError; an engine's libraries are imported only when it is made."""
    if name == "region":
        from dls.server.engines.region import RegionEngine

        return RegionEngine()
    raise EngineError(f"There is no engine named {name!r}.", f"Choose one of: {', '.join(NAMES)}.")
