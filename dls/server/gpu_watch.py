"""The GPUs of this machine and their free memory, as nvidia-smi said last; which of them the engine computes on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dls import gpus
from dls.server.executors import run_in_thread

FRESH_SECONDS = 15.0
"""Seconds for which an answer counts: nvidia-smi takes up to a second, and is asked only while somebody looks."""


def choose_used(found: tuple[gpus.Gpu, ...], device: str, environment: Mapping[str, str]) -> gpus.Gpu | None:
    """Return the one of the GPUs that a device of torch is, or None: torch numbers those that it is allowed to see."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    allowed = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    by_number = {str(gpu.index): gpu for gpu in found}
    seen = [by_number[name] for name in allowed if name in by_number] or list(found)
    index = int(number) if number.isdecimal() else 0
    return seen[index] if index < len(seen) else None


class GpuWatch:
    """Asks nvidia-smi in a thread, at most every FRESH_SECONDS."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._found: tuple[gpus.Gpu, ...] = ()
        self._asked: float | None = None
        self._asking: asyncio.Task[None] | None = None

    def describe(self, device: str, *, renews: bool = True) -> dict[str, Any] | None:
        """Return the fields of the GPU that the device is, as they were last; asks where that was never or long ago.

        Where `renews` is false it does not matter how long ago that was.
        """
        if device.startswith("cuda") and (renews or self._asked is None):
            self._renew()
        used = choose_used(self._found, device, self._environment)
        return asdict(used) if used else None

    def list(self) -> tuple[gpus.Gpu, ...]:
        """Return all GPUs as they were last; asks where that was never or long ago."""
        self._renew()
        return self._found

    def _renew(self) -> None:
        if self._asked is None or time.monotonic() - self._asked > FRESH_SECONDS:
            self._asked = time.monotonic()
            self._asking = asyncio.create_task(self.ask())

    async def ask(self) -> None:
        """Ask nvidia-smi now."""
        self._found = await run_in_thread(gpus.local) or self._found
