"""The engine's process: reads what is asked from a pipe, does it, answers. See `process` for the other half."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

from dls.errors import DlsError
from dls.server import engines
from dls.server.engines.base import Engine, Segmentation, Step
from dls.server.engines.messages import DONE, FAILED, LOST, PONG, TELL, EngineFault
from dls.server.executors import PREPARE_THREADS
from dls.server.shared_memory import attached
from dls.server.volume import Box, Geometry, Prompt, Volume

STICKY = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "an illegal memory access")
"""After these a process can't use the GPU any more, whatever it does."""
OUT_OF_MEMORY_SCORE = 500
"""When the machine's memory runs out, the kernel is to end this process before the one that answers requests."""

log = logging.getLogger("dls.server")


class Worker:
    """The engine and its open images."""

    def __init__(self, pipe: connection.Connection, engine: Engine) -> None:
        self._pipe = pipe
        self._engine = engine
        self._queue = ThreadPoolExecutor(engine.threads, "dls-engine")
        self._prepare = ThreadPoolExecutor(PREPARE_THREADS, "dls-prepare")
        self._open: dict[int, Segmentation] = {}
        self._sending = threading.Lock()
        self._door: Door | None = None

    def run(self) -> None:
        """Answer until the pipe is closed, which also happens when the other side dies."""
        pools = {"open": self._prepare, "close": self._prepare}
        steps: dict[str, Callable[..., Any]] = {
            "load": self.load,
            "open": self.open,
            "add": self.add,
            "replay": self.replay,
            "reset": self.reset,
            "close": self.close,
        }
        while True:
            try:
                number, name, arguments = self._pipe.recv()
            except (EOFError, OSError):
                return
            if name == "quit":
                return
            if name == "ping":
                self._send(0, PONG, None)
            elif name == "door":
                assert self._door is not None
                scope, body = arguments
                self._door.ask(scope, body, partial(self._send, number, DONE))
            else:
                pools.get(name, self._queue).submit(self._answer, number, steps[name], arguments)

    def _send(self, *message: Any) -> None:
        # When the other side has died, the reader ends the process.
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send(message)

    def _answer(self, number: int, step: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._send(number, DONE, step(*arguments))
        except (DlsError, MemoryError) as error:
            self._send(number, FAILED, error)
        except BaseException as error:
            log.exception("the engine failed")
            if any(word in str(error) for word in STICKY):
                self._send(0, LOST, f"The GPU failed ({str(error).splitlines()[0][:200]}).")
                os._exit(70)
            self._send(number, FAILED, EngineFault(type(error).__name__, str(error)))

    def load(self) -> tuple[str, str, str, bool]:
        """Load the engine and open its other door; returns what is known of it only now."""
        self._engine.load(self._tell)
        app = self._engine.native_api(self._queue)
        if app is not None:
            self._door = Door(app)
        return self._engine.key, self._engine.device, self._engine.notice, app is not None

    def _tell(self, step: Step) -> None:
        self._send(0, TELL, step)

    def open(self, number: int, image: str, mask: str, geometry: Geometry) -> None:
        """Start on an image."""
        data, drawn = attached(image, geometry.shape, "<f4"), attached(mask, geometry.shape, "u1")
        self._open[number] = self._engine.open(Volume(data, geometry), drawn)

    def add(self, number: int, prompt: Prompt) -> Box | None:
        """Refine a mask."""
        return self._open[number].add(prompt)

    def replay(self, number: int, prompts: list[Prompt]) -> None:
        """Refine a mask by what was drawn before."""
        self._open[number].replay(prompts)

    def reset(self, number: int) -> None:
        """Forget what was drawn."""
        self._open[number].reset()

    def close(self, number: int) -> None:
        """Give back an image's memory."""
        if (segmentation := self._open.pop(number, None)) is not None:
            segmentation.close()


class Door:
    """The engine's own application, on an event loop in a thread; a request is handed in and out as a whole."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="dls-door", daemon=True).start()
        self._context = app.router.lifespan_context(app)
        asyncio.run_coroutine_threadsafe(self._context.__aenter__(), self._loop).result()

    def ask(self, scope: dict[str, Any], body: bytes, answer: Callable[[Any], None]) -> None:
        """Answer a request, later, through `answer`."""
        asyncio.run_coroutine_threadsafe(self._ask(scope, body, answer), self._loop)

    async def _ask(self, scope: dict[str, Any], body: bytes, answer: Callable[[Any], None]) -> None:
        status, headers, parts = 500, [(b"content-type", b"text/plain")], [b""]
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", []))
            else:
                parts.append(message.get("body", b""))

        try:
            await self._app({**scope, "asgi": {"version": "3.0"}, "app": self._app}, receive, send)
        except Exception:
            log.exception("the engine's own application failed")
        answer((status, headers, b"".join(parts)))


def main(name: str, place: str) -> None:
    """Serve the engine of that name with the options in the first message, on the pipe that is inherited or named."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    # Ctrl-C reaches every process of the terminal; the other side says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe: connection.Connection
    if sys.platform == "win32":
        pipe = connection.Client(place, "AF_PIPE", authkey=sys.stdin.buffer.read())
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pipe = connection.Connection(int(place))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OUT_OF_MEMORY_SCORE))
    engines.prefetch(name)
    try:
        name, options = pipe.recv()
    except (EOFError, OSError):  # the other side could not start
        return
    Worker(pipe, engines.make(name, options)).run()
    os._exit(0)  # whatever its threads are at


if __name__ == "__main__":
    main(*sys.argv[1:])
