"""The catalog of engines: make one by its name."""

from __future__ import annotations

import contextlib
import importlib

from dls.errors import EngineError
from dls.server.engines.base import Engine
from dls.server.options import EngineOptions

NAMES = ("region", "nninteractive")
HEAVY_IMPORTS = {"region": "dls.server.engines.region.grow", "nninteractive": "torch"}
"""The module of each engine that takes longest to import."""


def prefetch(name: str) -> None:
    """Import the slowest module of an engine; an error is ignored here and raised when the engine is loaded."""
    with contextlib.suppress(Exception):
        importlib.import_module(HEAVY_IMPORTS.get(name, "numpy"))


def make_engine(name: str, options: EngineOptions) -> Engine:
    """Return the engine of that name, not loaded yet; the name `module:Class` selects an engine of the user's.

    Only the libraries of this engine are imported. Raises EngineError for a name or an option that can't be used.
    """
    if name == "region":
        if options.device not in ("auto", "cpu"):
            raise EngineError("The region engine works on the CPU only.", "Leave out --device.")
        from dls.server.engines.region import RegionEngine

        return RegionEngine()
    if name == "nninteractive":
        from dls.server.engines.nninteractive import NnInteractiveEngine

        return NnInteractiveEngine(options)
    if ":" in name:
        return _make_custom(name, options)
    raise EngineError(f"There is no engine named {name!r}.", f"Choose one of: {', '.join(NAMES)}.")


def _make_custom(name: str, options: EngineOptions) -> Engine:
    module, _, attribute = name.partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)(options)
    except (ImportError, AttributeError) as error:
        raise EngineError(f"The engine {name} can't be imported ({error}).", "Write it as module:Class.") from error
    return engine
