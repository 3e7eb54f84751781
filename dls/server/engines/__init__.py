"""The engines, and which one a name means."""

from __future__ import annotations

from dls.errors import EngineError
from dls.server.engines.base import Engine, EngineOptions

NAMES = ("region", "nninteractive")


def make(name: str, options: EngineOptions) -> Engine:
    """Return the engine of that name, or raise EngineError; an engine's libraries are imported only when it is made."""
    if name == "region":
        if options.device not in ("auto", "cpu"):
            raise EngineError("The region engine works on the CPU only.", "Leave out --device.")
        from dls.server.engines.region import RegionEngine

        return RegionEngine()
    if name == "nninteractive":
        from dls.server.engines.nninteractive import NnInteractiveEngine

        return NnInteractiveEngine(options)
    raise EngineError(f"There is no engine named {name!r}.", f"Choose one of: {', '.join(NAMES)}.")
