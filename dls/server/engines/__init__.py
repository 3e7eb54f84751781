"""The engines, and which one a name means."""

from __future__ import annotations

import contextlib
import importlib

from dls.errors import EngineError
from dls.server.engines.base import Engine
from dls.server.options import EngineOptions

NAMES = ("region", "nninteractive")
HEAVY = {"region": "dls.server.engines.region.grow", "nninteractive": "torch"}
"""What takes longest to import."""


def prefetch(name: str) -> None:
    """Import what the engine will need when it is loaded; whatever is wrong with it shows then."""
    with contextlib.suppress(Exception):
        importlib.import_module(HEAVY.get(name, "numpy"))


def make(name: str, options: EngineOptions) -> Engine:
    """Return the engine of that name, or raise EngineError.

    An engine's libraries are imported only when it is made.

    `module:Class` is an engine of the user's own, made with the options.
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
        return _of_ones_own(name, options)
    raise EngineError(f"There is no engine named {name!r}.", f"Choose one of: {', '.join(NAMES)}.")


def _of_ones_own(name: str, options: EngineOptions) -> Engine:
    module, _, attribute = name.partition(":")
    try:
        made: Engine = getattr(importlib.import_module(module), attribute)(options)
    except (ImportError, AttributeError) as error:
        raise EngineError(f"The engine {name} can't be imported ({error}).", "Write it as module:Class.") from error
    return made
