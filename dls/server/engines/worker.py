"""The engine's process: runs the calls that it reads from a pipe, and sends the results back.

`process` is the other side of the pipe, and `messages` describes what it carries.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from pathlib import Path
from typing import Any

from dls.errors import DlsError
from dls.server.engines.base import Engine, Progress, Segmentation
from dls.server.engines.catalog import make_engine, prefetch
from dls.server.engines.messages import DONE, FAILED, LOST, PING, PONG, PROGRESS, QUIT, EngineFault
from dls.server.engines.worker_official import OfficialSessions
from dls.server.executors import CODEC_THREADS, PREPARE_THREADS
from dls.server.shared_memory import attach
from dls.server.volume import Box, Geometry, Prompt, Volume

FATAL_ERRORS = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "an illegal memory access")
"""Parts of error messages after which a process can't use the GPU any more."""
PREPARING = ("open", "close", "official_open", "official_prepare", "official_close")
"""Commands that neither wait for prompts nor delay them."""
PACKING = ("official_pack",)
"""Commands that pack answers, which must not wait for images."""
OUT_OF_MEMORY_SCORE = 500
"""Makes the kernel end this process before the one that answers requests when the machine's memory runs out."""

log = logging.getLogger("dls.server")


class Worker:
    """Runs the calls on the engine and on the images that are open."""

    def __init__(self, pipe: connection.Connection, engine: Engine) -> None:
        self._pipe = pipe
        self._engine = engine
        self._engine_pool = ThreadPoolExecutor(engine.threads, "dls-engine")
        self._pools = {
            **dict.fromkeys(PREPARING, ThreadPoolExecutor(PREPARE_THREADS, "dls-prepare")),
            **dict.fromkeys(PACKING, ThreadPoolExecutor(CODEC_THREADS, "dls-codec")),
        }
        """By command: the threads that run it, where those are not the engine's."""
        self._segmentations: dict[int, Segmentation] = {}
        self._official = OfficialSessions(engine.official)
        self._send_lock = threading.Lock()

    def run(self) -> None:
        """Handle calls until the pipe is closed, which also happens when the server's process dies."""
        while True:
            try:
                number, command, arguments = self._pipe.recv()
            except (EOFError, OSError):
                return
            if command == QUIT:
                return
            self._handle(number, command, arguments)

    def _handle(self, number: int, command: str, arguments: tuple[Any, ...]) -> None:
        if command == PING:
            self._send(0, PONG, None)
        else:
            methods: dict[str, Callable[..., Any]] = {
                **self._official.methods,
                "load": self.load,
                "open": self.open,
                "add": self.add,
                "replay": self.replay,
                "restore": self.restore,
                "reset": self.reset,
                "close": self.close,
            }
            self._pools.get(command, self._engine_pool).submit(self._answer, number, methods[command], arguments)

    def _send(self, *message: Any) -> None:
        # When the server's process has died, `run` ends this process.
        with self._send_lock, contextlib.suppress(OSError):
            self._pipe.send(message)

    def _answer(self, number: int, method: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._send(number, DONE, method(*arguments))
        except (DlsError, MemoryError) as error:
            self._send(number, FAILED, error)
        except BaseException as error:
            log.exception("the engine failed")
            if any(text in str(error) for text in FATAL_ERRORS):
                self._send(0, LOST, f"The GPU failed ({str(error).splitlines()[0][:200]}).")
                os._exit(70)
            self._send(number, FAILED, EngineFault(type(error).__name__, str(error)))

    def load(self) -> tuple[str, str, str, dict[str, Any]]:
        """Load the engine.

        Returns what is known only now: the engine's key, device and notice, and what it tells official clients.
        """
        self._engine.load(self._report)
        official = self._engine.official
        return self._engine.key, self._engine.device, self._engine.notice, official.capabilities if official else {}

    def _report(self, progress: Progress) -> None:
        self._send(0, PROGRESS, progress)

    def open(self, number: int, image: str, mask: str, geometry: Geometry) -> None:
        """Start to segment an image; `image` and `mask` are the paths of shared blocks."""
        data, mask_data = attach(image, geometry.shape, "<f4"), attach(mask, geometry.shape, "u1")
        self._segmentations[number] = self._engine.open(Volume(data, geometry), mask_data)

    def add(self, number: int, prompt: Prompt) -> Box | None:
        """Refine the mask of an image by a prompt."""
        return self._segmentations[number].add(prompt)

    def replay(self, number: int, prompts: list[Prompt]) -> None:
        """Refine the mask of an image by all prompts of an earlier segmentation."""
        self._segmentations[number].replay(prompts)

    def restore(self, number: int) -> None:
        """Make an image's segmentation go on from the mask that the server has written to the shared block."""
        segmentation = self._segmentations[number]
        segmentation.restore(segmentation.mask)

    def reset(self, number: int) -> None:
        """Remove the prompts of an image."""
        self._segmentations[number].reset()

    def close(self, number: int) -> None:
        """Free the memory of an image."""
        if (segmentation := self._segmentations.pop(number, None)) is not None:
            segmentation.close()


def main(name: str, address: str) -> None:
    """Run the engine of that name until the server closes the pipe.

    `address` is the number of an inherited descriptor, or the name of a pipe on Windows. The first message holds the
    engine's options.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    # Ctrl-C reaches every process of the terminal, but the server decides when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe: connection.Connection
    if sys.platform == "win32":
        pipe = connection.Client(address, "AF_PIPE", authkey=sys.stdin.buffer.read())
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pipe = connection.Connection(int(address))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OUT_OF_MEMORY_SCORE), encoding="utf-8")
    prefetch(name)
    try:
        name, options = pipe.recv()
    except (EOFError, OSError):  # the server could not start
        return
    Worker(pipe, make_engine(name, options)).run()
    os._exit(0)  # does not wait for threads that still compute


if __name__ == "__main__":
    main(*sys.argv[1:])
