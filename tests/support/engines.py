"""Engines of the tests' own, which `dls serve --engine tests.support.engines:NAME` takes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from dls.server.engines.region import RegionEngine
from dls.server.engines.region.engine import RegionSegmentation
from dls.server.options import EngineOptions
from dls.server.volume import Box, Mask, Prompt, Volume

TROUBLE = "DLS_TEST_TROUBLE"
"""Names a folder; a file in it named after a fault makes the next prompt meet it, once, or always if it says so."""


class Troubled(RegionEngine):
    """The region engine, with faults on demand."""

    def __init__(self, options: EngineOptions) -> None:
        pass

    def open(self, volume: Volume, mask: Mask | None = None) -> RegionSegmentation:
        plain = super().open(volume, mask)
        return TroubledSegmentation(volume, plain.mask)


class TroubledSegmentation(RegionSegmentation):
    """Dies, hangs, or takes its time when it is told to."""

    def add(self, prompt: Prompt) -> Box | None:
        folder = Path(os.environ[TROUBLE])
        for name, fault in FAULTS.items():
            there = folder / name
            if there.exists():
                if there.read_text() != "always":
                    there.unlink()
                fault()
        return super().add(prompt)


def _cuda() -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


FAULTS = {
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "cuda": _cuda,
    "slow": lambda: time.sleep(3),
}
