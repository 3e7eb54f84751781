"""A real HTTP server of ours in a thread."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from dls.server.engines.region import RegionEngine
from dls.server.http.access import Policy
from dls.server.http.app import make_app
from dls.server.http.connections import LimitedProtocol
from dls.server.sessions.folders import Folders
from dls.server.sessions.store import SessionStore


@dataclass
class LiveServer:
    """Where a server listens."""

    port: int
    socket: str = ""
    """Path of the Unix socket on which it listens too; empty for none."""


@contextlib.contextmanager
def serving(engine: Any = None, **options: Any) -> Iterator[LiveServer]:
    """Serve an engine on a free loopback port, in a thread, its sessions in `folder` or in one of its own.

    With a `socket` it listens on that Unix socket too, as the server that a client starts does.
    """
    path = options.pop("socket", "")
    options.setdefault("policy", Policy())
    options.setdefault("budget", 2 << 30)
    with contextlib.ExitStack() as stack:
        home = options.pop("folder", None) or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dls-s-")))
        earlier = options.pop("earlier", None)
        if "store" not in options:
            options["store"] = SessionStore(Folders(home / "own" / "home", earlier)).open()
        port = options.pop("port", 0)
        yield stack.enter_context(_listening(make_app(engine or RegionEngine(), **options), path, port))


@contextlib.contextmanager
def _listening(app: Any, path: str, port: int = 0) -> Iterator[LiveServer]:
    server = uvicorn.Server(uvicorn.Config(app, http=LimitedProtocol, ws="none", log_config=None, access_log=False))
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    listeners = [listener]
    if path:
        inside = socket.socket(socket.AF_UNIX)
        inside.bind(path)
        inside.listen(64)
        listeners.append(inside)
    thread = threading.Thread(target=server.run, args=(listeners,), daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield LiveServer(listener.getsockname()[1], path)
    finally:
        server.should_exit = True
        thread.join(20)
        for each in listeners:
            each.close()
