"""Run a server: bind its sockets, make its engine, run uvicorn until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import platform
import socket
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from dls import __version__
from dls.contract import BOOT_FILE, GRACE_SECONDS, REPLACED_SECONDS, LaunchFile, ServerState
from dls.credentials import make_secret, server_field
from dls.errors import DlsError, ListenError
from dls.page.view import AddressView
from dls.server import descriptors, locks, memory_limits, sockets
from dls.server.engines.base import Engine
from dls.server.engines.catalog import make_engine
from dls.server.engines.process import ProcessEngine
from dls.server.engines.readiness import Readiness
from dls.server.http.access import Policy
from dls.server.http.activity import Activity, watch_idle
from dls.server.http.app import make_app
from dls.server.http.connections import MAX_CONNECTIONS, LimitedProtocol, limited_protocol
from dls.server.http.middleware import authorize
from dls.server.http.models import list_models
from dls.server.http.page import Page
from dls.server.http.proof import ProofProtocol
from dls.server.options import ServeOptions
from dls.server.registration import Registration
from dls.server.sessions.folders import choose_folders
from dls.server.sessions.store import SessionStore
from dls.server.spawn import EngineChild

log = logging.getLogger("dls.server")


@dataclass(frozen=True)
class RunningServer:
    """A server that accepts requests, as its banner describes it."""

    options: ServeOptions
    port: int | None
    secret: str | None = field(repr=False)
    engine: Engine
    models: tuple[str, ...]
    page: Page | None = None
    """The page, where one is served."""

    @property
    def serves_viewers(self) -> bool:
        """Whether it speaks nnInteractive's own protocol, as napari, 3D Slicer and MITK do."""
        return self.options.serves_viewers


ReadyCallback = Callable[[RunningServer], None]
"""Called once, as soon as the server accepts requests."""


def serve(options: ServeOptions, on_ready: ReadyCallback, child: EngineChild | None = None) -> None:
    """Serve until SIGINT or SIGTERM, or until the server has been idle for long enough.

    `child` is the engine's process, where it has been started already. Raises ListenError or EngineError.
    """
    descriptors.raise_limit()
    with contextlib.ExitStack() as stack:
        folders = choose_folders(options.session_dir, options.name)
        sessions = SessionStore(folders, options.session_ttl, options.session_disk).open()
        # In a job, the batch script starts the servers, and a successor gets ready while this one still runs.
        if options.launch is not None and not options.launch.job:
            # The lock is not in the run directory: if a cleanup program removed it there, a second server would start.
            wait = REPLACED_SECONDS if options.launch.replaces else 0.0
            stack.enter_context(locks.exclusive(folders.home / f"{options.launch.request}.lock", wait))
        listeners = stack.enter_context(_bind(options))
        description = make_engine(options.engine, options.engine_options)
        engine = ProcessEngine(options.engine, options.engine_options, description, child)
        _Service(options, listeners, engine).run(sessions, on_ready)


@dataclass(frozen=True)
class _Listeners:
    """The sockets of a server: on the proven one, a client first has to prove that it knows the secret."""

    plain: list[socket.socket]
    proven: socket.socket | None
    port: int | None


class _Service:
    """Runs one server from its first request to its last."""

    def __init__(self, options: ServeOptions, listeners: _Listeners, engine: Engine) -> None:
        self._options = options
        self._listeners = listeners
        self._engine = engine
        self._failures: list[DlsError] = []
        self._readiness = Readiness(self._fail)
        self._activity = Activity()
        self._end_reason = "stopped"
        models = tuple(model.id for model in list_models(engine.models, options.stand_in))
        secret = _choose_secret(options)
        self._page = _make_page(options, listeners.port, secret)
        self._description = RunningServer(options, listeners.port, secret, engine, models, self._page)
        launch = options.launch
        self._registration = _register(self._description, launch) if launch else None

    def _fail(self, error: DlsError) -> None:
        self._failures.append(error)
        self._stop("failed")

    def _stop(self, reason: str) -> None:
        self._end_reason = reason
        self._server.should_exit = True

    def _release_waiting(self) -> None:
        """Answer the requests that wait for something, because the server is ending and waits for them."""
        self._readiness.cancel()
        if self._page is not None:
            self._page.end()

    def run(self, sessions: SessionStore, on_ready: ReadyCallback) -> None:
        """Serve until the server is told to stop; raises the error of an engine that can't be loaded."""
        self._server = _Server(
            _configure(self._make_app(sessions)),
            lambda: self._announce(on_ready),
            self._release_waiting,
            self._background_tasks(),
            self._listeners.proven,
            self._description.secret,
        )
        try:
            self._server.run(self._listeners.plain)
        finally:
            if self._registration is not None:
                self._registration.unregister(self._end_reason)
            self._engine.close()
        if self._failures:
            raise self._failures[0]
        log.info("the server ended")

    def _make_app(self, sessions: SessionStore) -> ASGIApp:
        options, launch = self._options, self._options.launch
        return make_app(
            self._engine,
            policy=Policy(self._description.secret, options.open, _server_names(options)),
            budget=options.memory or memory_limits.default_budget(),
            store=sessions,
            stand_in=options.stand_in,
            identity={"pid": os.getpid(), "code": launch.code if launch else ""},
            readiness=self._readiness,
            activity=self._activity,
            native_api=options.engine_options.native_api,
            idle=options.idle,
            page=self._page,
        )

    def _announce(self, on_ready: ReadyCallback) -> None:
        if self._registration is not None:
            self._registration.register()
        on_ready(self._description)
        log.info("dls %s serves the %s engine", __version__, self._engine.name)

    def _background_tasks(self) -> list[Coroutine[Any, Any, None]]:
        options = self._options
        tasks: list[Coroutine[Any, Any, None]] = []
        if self._registration is not None and options.uds is not None:
            tasks.append(self._registration.maintain(options.uds, lambda listener: self._server.add_listener(listener)))
        if options.idle is not None:
            tasks.append(watch_idle(self._activity, options.idle, lambda: self._stop("idle")))
        return tasks


class _Server(uvicorn.Server):
    """A uvicorn server with callbacks, background tasks and listeners that can be added while it runs."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_startup: Callable[[], None],
        on_shutdown: Callable[[], None],
        background: list[Coroutine[Any, Any, None]],
        proven: socket.socket | None,
        secret: str | None,
    ) -> None:
        super().__init__(config)
        self._proven = proven
        self._secret = secret
        self._on_startup = on_startup
        self._on_shutdown = on_shutdown
        self._background = background
        self._tasks: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_log_loop_error)
        await super().startup(sockets)
        if self._proven is not None:
            await self._add_proven_listener(self._proven)
        self._on_startup()
        self._tasks = [asyncio.create_task(coroutine) for coroutine in self._background]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_shutdown()
        for task in self._tasks:
            task.cancel()
        await super().shutdown(sockets)

    async def add_listener(self, listener: socket.socket) -> None:
        """Accept requests on one more socket, as uvicorn does on the sockets that it was given."""
        await self._listen(listener, self._make_http)

    async def _add_proven_listener(self, listener: socket.socket) -> None:
        """Accept requests on a loopback port from those who prove that they know the secret, without sending it."""
        assert self._secret is not None
        make, unproven = partial(self._make_http, is_proven=True), dict[ProofProtocol, None]()
        await self._listen(
            listener, partial(ProofProtocol, self._secret, int(listener.getsockname()[1]), make, unproven)
        )

    async def _listen(self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(make_protocol, sock=listener, backlog=sockets.BACKLOG))

    def _make_http(self, is_proven: bool = False) -> LimitedProtocol:
        kind: Any = self.config.http_protocol_class
        protocol: LimitedProtocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        if is_proven:
            protocol.is_proven, protocol.app = True, authorize(protocol.app)
        return protocol


def _log_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error of the event loop; asyncio repeats the one about descriptors, with a traceback, at every attempt."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        log.debug("a connection could not be accepted: %s", error)
    else:
        loop.default_exception_handler(context)


def _configure(app: ASGIApp) -> uvicorn.Config:
    most = min(MAX_CONNECTIONS, descriptors.limit() // descriptors.CONNECTION_SHARE)
    return uvicorn.Config(
        app,
        http=limited_protocol(max_connections=most),
        ws="none",
        log_config=None,
        access_log=False,
        backlog=sockets.BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def _choose_secret(options: ServeOptions) -> str | None:
    if options.open:
        return None
    return options.secret or (make_secret() if options.is_public else None)


def _make_page(options: ServeOptions, port: int | None, secret: str | None) -> Page | None:
    if not options.serves_page or port is None:
        return None
    address = AddressView(server_field(secret), port, options.serves_viewers, secret or "")
    return Page(port, address, platform.node())


def _server_names(options: ServeOptions) -> frozenset[str]:
    """Return the names by which clients may address this server."""
    hostname = socket.gethostname()
    names = (hostname, f"{hostname.split('.')[0]}.local", *options.allow_hosts, options.host or hostname)
    return frozenset(name.lower() for name in names)


def _register(server: RunningServer, launch: LaunchFile) -> Registration:
    return Registration(Path(launch.run_dir), _state(server, launch), Path(launch.record) if launch.record else None)


def _state(server: RunningServer, launch: LaunchFile) -> ServerState:
    return ServerState(
        pid=os.getpid(),
        secret=server.secret,
        code=launch.code,
        request=launch.request,
        socket=str(server.options.uds),
        port=server.port,
        engine=server.engine.name,
        device=server.engine.device,
        log=launch.log,
        version=__version__,
        run_dir=launch.run_dir,
        host=platform.node(),
        boot=_read_boot(),
    )


def _read_boot() -> str:
    with contextlib.suppress(OSError):
        return Path(BOOT_FILE).read_text(encoding="utf-8").strip()
    return ""


@contextlib.contextmanager
def _bind(options: ServeOptions) -> Iterator[_Listeners]:
    """Bind the server's sockets, and close them at the end. Raises ListenError.

    The port of a server that a client started asks for the proof; what a user started speaks plain HTTP.
    """
    with contextlib.ExitStack() as stack:
        plain: list[socket.socket] = []
        proven = port = None
        if options.uds is not None:
            plain.append(stack.enter_context(sockets.unix_socket(options.uds)))
        if options.host is not None:
            listener = stack.enter_context(sockets.tcp_socket(options.host, options.port))
            port = int(listener.getsockname()[1])
            if options.launch is not None:
                proven = listener
            else:
                plain.append(listener)
                if (other := sockets.other_loopback(options.host, listener)) is not None:
                    plain.append(stack.enter_context(other))
        if not plain and proven is None:
            raise ListenError(
                "The server has nothing to listen on.", "Name an address with --host or a socket with --uds."
            )
        yield _Listeners(plain, proven, port)
