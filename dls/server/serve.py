"""Options to engine to uvicorn: bind, say where, serve until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from dls import __version__
from dls.contract import GRACE_SECONDS, REPLACED_SECONDS, LaunchFile, ServerState
from dls.errors import DlsError, ListenError
from dls.server import engines, locks, memory, sockets
from dls.server.engines.base import Engine
from dls.server.engines.process import ProcessEngine
from dls.server.engines.readiness import Readiness
from dls.server.http.access import Policy, make_secret
from dls.server.http.activity import Activity, watch_idle
from dls.server.http.app import make_app
from dls.server.http.models import list_models
from dls.server.options import ServeOptions
from dls.server.registration import Registration
from dls.server.sessions.folders import choose_folders
from dls.server.sessions.store import SessionStore
from dls.server.spawn import SpawnedWorker

log = logging.getLogger("dls.server")


@dataclass(frozen=True)
class Listening:
    """A server that listens: what the banner shows."""

    options: ServeOptions
    port: int | None
    secret: str | None = field(repr=False)
    engine: Engine
    models: tuple[str, ...]


def serve(options: ServeOptions, announce: Callable[[Listening], None], begun: SpawnedWorker | None = None) -> None:
    """Serve until SIGINT or SIGTERM, or until nobody needs it; raises ListenError or EngineError.

    `begun` is the engine's process, where it was begun already.
    """
    with contextlib.ExitStack() as stack:
        folders = choose_folders(options.session_dir, options.name)
        kept = SessionStore(folders, options.session_ttl).open()
        if options.launch is not None:
            # Not in the run directory: with that cleaned away, a second server would start beside the first.
            wait = REPLACED_SECONDS if options.launch.replaces else 0.0
            stack.enter_context(locks.only_one(folders.home / f"{options.launch.request}.lock", wait))
        listeners, port = stack.enter_context(_bound(options))
        facts = engines.make(options.engine, options.engine_options)
        run = _Run(options, port, ProcessEngine(options.engine, options.engine_options, facts, begun))
        run.serve(listeners, kept, announce)


class _Run:
    """One server from its first request to its last."""

    def __init__(self, options: ServeOptions, port: int | None, engine: Engine) -> None:
        self._options = options
        self._engine = engine
        self._failures: list[DlsError] = []
        self._readiness = Readiness(self._failed)
        self._activity = Activity()
        self._why = "stopped"
        models = tuple(model.id for model in list_models(engine.models, options.stand_in))
        self._listening = Listening(options, port, _secret(options), engine, models)

    def _failed(self, error: DlsError) -> None:
        self._failures.append(error)
        self._end("failed")

    def _end(self, why: str) -> None:
        self._why = why
        self._server.should_exit = True

    def serve(self, sockets: list[socket.socket], kept: SessionStore, announce: Callable[[Listening], None]) -> None:
        """Serve; an engine that can't be loaded ends it with its error."""
        options, listening = self._options, self._listening
        launch = options.launch
        app = make_app(
            self._engine,
            policy=Policy(listening.secret, options.open, _names(options)),
            budget=options.memory or memory.default_budget(),
            store=kept,
            stand_in=options.stand_in,
            identity={"pid": os.getpid(), "code": launch.code if launch else ""},
            readiness=self._readiness,
            activity=self._activity,
            native_api=options.engine_options.native_api,
        )
        there = Registration(Path(launch.run_dir), _state(listening, launch)) if launch else None

        def ready() -> None:
            if there is not None:
                there.announce()
            announce(listening)
            log.info("dls %s serves the %s engine", __version__, self._engine.name)

        self._server = _Server(_configured(app), ready, self._readiness.give_up, self._chores(there))
        try:
            self._server.run(sockets)
        finally:
            if there is not None:
                there.withdraw(self._why)
            self._engine.close()
        if self._failures:
            raise self._failures[0]
        log.info("the server ended")

    def _chores(self, there: Registration | None) -> list[Coroutine[Any, Any, None]]:
        options = self._options
        chores: list[Coroutine[Any, Any, None]] = []
        if there is not None and options.uds is not None:
            chores.append(there.look_after(options.uds, lambda listener: self._server.listen_too(listener)))
        if options.idle is not None:
            chores.append(watch_idle(self._activity, options.idle, lambda: self._end("idle")))
        return chores


class _Server(uvicorn.Server):
    """uvicorn, which says when it accepts requests, does chores beside, and can listen on one more socket."""

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], None],
        ending: Callable[[], None],
        chores: list[Coroutine[Any, Any, None]],
    ) -> None:
        super().__init__(config)
        self._ready = ready
        self._ending = ending
        self._chores = chores
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
        self._tasks = [asyncio.create_task(chore) for chore in self._chores]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        for task in self._tasks:
            task.cancel()
        await super().shutdown(sockets)

    async def listen_too(self, listener: socket.socket) -> None:
        """Accept requests on one more socket, as uvicorn does on its own."""

        def protocol() -> asyncio.Protocol:
            kind: Any = self.config.http_protocol_class
            made: asyncio.Protocol = kind(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(protocol, sock=listener, backlog=sockets.BACKLOG))


def _configured(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        backlog=sockets.BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _secret(options: ServeOptions) -> str | None:
    if options.open:
        return None
    return options.secret or (make_secret() if options.is_public else None)


def _names(options: ServeOptions) -> frozenset[str]:
    """Return the names by which clients may address this server."""
    name = socket.gethostname()
    names = (name, f"{name.split('.')[0]}.local", *options.allow_hosts, options.host or name)
    return frozenset(each.lower() for each in names)


def _state(listening: Listening, launch: LaunchFile) -> ServerState:
    return ServerState(
        pid=os.getpid(),
        secret=listening.secret,
        code=launch.code,
        request=launch.request,
        socket=str(listening.options.uds),
        port=listening.port,
        engine=listening.engine.name,
        device=listening.engine.device,
        log=launch.log,
        version=__version__,
        run_dir=launch.run_dir,
    )


@contextlib.contextmanager
def _bound(options: ServeOptions) -> Iterator[tuple[list[socket.socket], int | None]]:
    """Bind the sockets, or raise ListenError; the Unix socket's file goes when it is done."""
    with contextlib.ExitStack() as stack:
        listeners: list[socket.socket] = []
        port = None
        if options.uds is not None:
            listeners.append(stack.enter_context(sockets.unix_socket(options.uds)))
        if options.host is not None:
            listener = stack.enter_context(sockets.tcp_socket(options.host, options.port))
            listeners.append(listener)
            port = int(listener.getsockname()[1])
        if not listeners:
            raise ListenError(
                "The server has nothing to listen on.", "Name an address with --host or a socket with --uds."
            )
        yield listeners, port
