"""An engine in a process of its own: when that process dies or hangs, the server survives and starts another one.

This is the server's side; `worker` is the other one. Images and masks are in shared memory, and everything else goes
through a pipe, whose content `messages` describes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dls.errors import EngineLost
from dls.server import spawn
from dls.server.engines.base import Engine, Progress, ReportProgress, Segmentation
from dls.server.engines.process_official import ProcessOfficial
from dls.server.engines.worker_process import SILENT_SECONDS, WorkerProcess
from dls.server.options import EngineOptions
from dls.server.shared_memory import SharedBlock
from dls.server.spawn import EngineChild
from dls.server.volume import Box, Mask, Prompt, Volume

HUNG_SECONDS = {"cpu": 1800.0}
"""Seconds that one prompt may take, by device."""
HUNG_SECONDS_GPU = 180.0
"""Seconds that one prompt may take on every other device."""

log = logging.getLogger("dls.server")


class ProcessEngine:
    """An engine whose work is done in another process; `load` starts the process, and starts a new one after a loss.

    `description` is the same engine, not loaded, from which this one takes its attributes. `child` is the first
    process, where it has been started already.
    """

    def __init__(
        self, name: str, options: EngineOptions, description: Engine, child: EngineChild | None = None
    ) -> None:
        self._name, self._options, self._description = name, options, description
        self.name, self.key, self.device = description.name, description.key, description.device
        self.notice, self.threads, self.models = description.notice, description.threads, description.models
        self._child = child
        self._process: WorkerProcess | None = None
        self._numbers = iter(range(1, 1 << 62))
        self.official: ProcessOfficial | None = None
        if description.official is not None:
            self.official = ProcessOfficial(lambda: self._started, lambda: self._prompt_limit)

    @property
    def pid(self) -> int | None:
        """Process number of the engine's process, while there is one."""
        return self._process.pid if self._process else None

    def load(self, report: ReportProgress) -> None:
        """Start a process and load the engine in it. Raises EngineError or EngineLost."""
        self.close()
        report(Progress("load", "starting the engine"))
        child, self._child = self._child or spawn.spawn_engine(self._name), None
        self._process = WorkerProcess(child, report)
        self._process.start(self._name, self._options)
        self.key, self.device, self.notice, capabilities = self._process.call("load")
        if self.official is not None:
            self.official.capabilities = capabilities
        self._process.silence_limit = SILENT_SECONDS

    @property
    def _started(self) -> WorkerProcess:
        assert self._process is not None
        return self._process

    def session_bytes(self, voxels: int) -> int:
        """Return the bytes of memory that an open image of so many voxels takes."""
        return self._description.session_bytes(voxels)

    def open(self, volume: Volume, mask: Mask | None = None) -> Segmentation:
        """Start to segment an image, in memory that both processes map."""
        process, shape = self._started, volume.geometry.shape
        image, drawn = volume.shared or _copy_to_shared_memory(volume), SharedBlock(volume.geometry.voxels)
        try:
            number = next(self._numbers)
            process.call("open", number, image.path, drawn.path, volume.geometry)
            return ProcessSegmentation(process, number, drawn.array(shape, "u1"), self._prompt_limit)
        finally:
            drawn.close()
            if image is not volume.shared:
                image.close()

    @property
    def _prompt_limit(self) -> float:
        return HUNG_SECONDS.get(self.device, HUNG_SECONDS_GPU)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None


def _copy_to_shared_memory(volume: Volume) -> SharedBlock:
    block = SharedBlock(volume.data.nbytes)
    block.array(volume.data.shape, "<f4")[:] = volume.data
    return block


class ProcessSegmentation:
    """One image in the engine's process; both processes map its mask."""

    def __init__(self, process: WorkerProcess, number: int, mask: Mask, limit: float) -> None:
        self._process, self._number, self._limit = process, number, limit
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Refine the mask by the prompt; returns a box that contains every change."""
        box: Box | None = self._process.call("add", self._number, prompt, limit=self._limit)
        return box

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Add the prompts of an earlier segmentation."""
        self._process.call("replay", self._number, list(prompts), limit=self._limit * max(1, len(prompts)))

    def restore(self, mask: Mask) -> None:
        """Replace the mask; the process reads the new one from the memory that both map."""
        self.mask[:] = mask
        self._process.call("restore", self._number, limit=self._limit)

    def reset(self) -> None:
        """Remove the prompts and empty the mask."""
        self._process.call("reset", self._number, limit=self._limit)

    def close(self) -> None:
        """Free the memory in the process; if the process is gone, nothing is left to free."""
        try:
            self._process.call("close", self._number, limit=self._limit)
        except EngineLost:
            log.debug("the image was freed when its process ended")
