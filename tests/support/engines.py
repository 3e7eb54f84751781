"""Engines for tests: `dls serve --engine tests.support.engines:NAME` runs them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dls.server.engines.region import RegionEngine
from dls.server.engines.region.engine import RegionSegmentation
from dls.server.options import EngineOptions
from dls.server.volume import Box, Mask, Prompt, Volume

TROUBLE = "DLS_TEST_TROUBLE"
"""Environment variable with a folder: a file there named after a fault causes it at the next prompt.

The fault happens once, or at every prompt if the file contains "always".
"""


class Troubled(RegionEngine):
    """The region engine, with faults on request."""

    def __init__(self, options: EngineOptions) -> None:
        pass

    def open(self, volume: Volume, mask: Mask | None = None) -> RegionSegmentation:
        plain = super().open(volume, mask)
        return TroubledSegmentation(volume, plain.mask)


class TroubledSegmentation(RegionSegmentation):
    """Dies, hangs, fails or is slow when a file in the folder says so."""

    def add(self, prompt: Prompt) -> Box | None:
        folder = Path(os.environ[TROUBLE])
        for name, fault in FAULTS.items():
            file = folder / name
            if file.exists():
                if file.read_text() != "always":
                    file.unlink()
                fault()
        return super().add(prompt)


def _fail_on_cuda() -> None:
    raise RuntimeError("CUDA error: device-side assert triggered")


FAULTS: dict[str, Callable[[], None]] = {
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "cuda": _fail_on_cuda,
    "slow": lambda: time.sleep(3),
}
