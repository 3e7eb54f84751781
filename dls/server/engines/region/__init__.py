"""The embedded engine: grows a region from what was drawn, with no GPU, no weights and no torch."""

from dls.server.engines.region.engine import RegionEngine, RegionSegmentation

__all__ = ["RegionEngine", "RegionSegmentation"]
