"""The built-in engine: grows a region from the prompts, and needs no GPU, no weights and no torch."""

from dls.server.engines.region.engine import RegionEngine, RegionSegmentation

__all__ = ["RegionEngine", "RegionSegmentation"]
