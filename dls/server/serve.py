"""Options to engine to uvicorn: bind, say where, serve until told to stop."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import uvicorn
from starlette.types import ASGIApp

from dls import __version__
from dls.errors import DlsError, ListenError
from dls.server import engines, listen, memory
from dls.server.access import Policy, make_secret
from dls.server.app import listed, make_app
from dls.server.engines.base import Engine, EngineOptions
from dls.server.models import Wish
from dls.server.readiness import Readiness

DEFAULT_PORT = 8911
STATE_FORMAT = 1
GRACE_SECONDS = 5
"""For requests under way when the server is told to end; by itself uvicorn waits for them for ever."""
PATHS = ("models_path", "ca_bundle")

log = logging.getLogger("dls.server")


@dataclass(frozen=True)
class ServeOptions:
    """What the server is to do; `host` None opens no port."""

    host: str | None = "127.0.0.1"
    port: int = DEFAULT_PORT
    uds: Path | None = None
    engine: str = "region"
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    stand_in: bool = False
    secret: str | None = field(default=None, repr=False)
    open: bool = False
    allow_hosts: tuple[str, ...] = ()
    memory: int | None = None
    """Bytes that all images may take together; by default a share of the machine's memory."""
    launch: Launch | None = None

    @property
    def is_public(self) -> bool:
        """Whether other computers can reach it."""
        return self.host is not None and self.host not in listen.LOOPBACK


@dataclass(frozen=True)
class Launch:
    """What a server that was started from elsewhere is told, and where it writes how it is reached."""

    state: Path
    lock: Path
    code: str
    request: str
    log: str


@dataclass(frozen=True)
class Listening:
    """A server that listens: what the banner shows."""

    options: ServeOptions
    port: int | None
    secret: str | None = field(repr=False)
    engine: Engine
    models: tuple[str, ...]


def from_launch_file(path: Path) -> ServeOptions:
    """Read the options that a client wrote for a server it starts."""
    try:
        said = json.loads(path.read_text())
        launch = Launch(Path(said["state"]), Path(said["lock"]), said["code"], said["request"], said["log"])
        tcp = bool(said["tcp"])
        models_path, ca_bundle = (Path(said[name]).expanduser() if said[name] else None for name in PATHS)
        wish = Wish(said["model"], models_path, said["network"], said["insecure"], ca_bundle)
        return ServeOptions(
            host="127.0.0.1" if tcp else None,
            port=0,
            uds=Path(said["uds"]),
            engine=said["engine"],
            engine_options=EngineOptions(said["device"], wish, said["compile"], said["other_door"]),
            stand_in=bool(said["stand_in"]),
            secret=make_secret(),
            launch=launch,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ListenError(f"The launch file {path} can't be read ({type(error).__name__}).") from error


def serve(options: ServeOptions, announce: Callable[[Listening], None]) -> None:
    """Serve until SIGINT or SIGTERM; raises ListenError or EngineError before anything is announced."""
    with contextlib.ExitStack() as stack:
        if options.launch is not None:
            stack.enter_context(_only_one(options.launch.lock))
        sockets, port = stack.enter_context(_bound(options))
        engine = engines.make(options.engine, options.engine_options)
        secret = _secret(options)
        failures: list[DlsError] = []

        def failed(error: DlsError) -> None:
            failures.append(error)
            server.should_exit = True

        readiness = Readiness(failed)
        identity = {"pid": os.getpid(), "code": options.launch.code if options.launch else ""}
        app = make_app(
            engine,
            policy=Policy(secret, options.open, _names(options)),
            budget=options.memory or memory.default_budget(),
            stand_in=options.stand_in,
            identity=identity,
            readiness=readiness,
            other_door=options.engine_options.other_door,
        )
        models = tuple(model.id for model in listed(engine.models, options.stand_in))
        listening = Listening(options, port, secret, engine, models)
        server = _Server(_configured(app))

        def ready() -> None:
            if options.launch is not None:
                stack.enter_context(_state_file(listening))
            announce(listening)
            log.info("dls %s serves the %s engine on %s", __version__, engine.name, engine.device)

        server.when_ready = ready
        try:
            server.run(sockets)
        finally:
            if readiness.is_loading:
                log.info("ended while the engine was loading")
                stack.close()
                os._exit(0)  # its thread can't be interrupted, and Python would wait for it
        if failures:
            raise failures[0]
        log.info("the server ended")


class _Server(uvicorn.Server):
    """uvicorn, which says when it accepts requests."""

    when_ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.when_ready()


def _configured(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        backlog=listen.BACKLOG,
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


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Hold the lock that one server at a time may hold; it goes with the process, however that ends."""
    if sys.platform == "win32":  # nobody launches a server there
        yield
        return
    import fcntl

    stream: IO[str]
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ListenError("Another server of this user runs here already.", "Stop it first: dls stop.") from error
        yield


@contextlib.contextmanager
def _state_file(listening: Listening) -> Iterator[None]:
    """Say how this server is reached, to those who can read its user's files; in place only when whole."""
    launch = listening.options.launch
    assert launch is not None
    said = {
        "format": STATE_FORMAT,
        "pid": os.getpid(),
        "secret": listening.secret,
        "code": launch.code,
        "request": launch.request,
        "socket": str(listening.options.uds),
        "port": listening.port,
        "engine": listening.engine.name,
        "device": listening.engine.device,
        "log": launch.log,
    }
    part = launch.state.with_name(f"state.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(json.dumps(said) + "\n")
    part.replace(launch.state)
    try:
        yield
    finally:
        launch.state.unlink(missing_ok=True)


@contextlib.contextmanager
def _bound(options: ServeOptions) -> Iterator[tuple[list[socket.socket], int | None]]:
    """Bind the sockets, or raise ListenError; the Unix socket's file goes when it is done."""
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        port = None
        if options.uds is not None:
            sockets.append(stack.enter_context(listen.unix_socket(options.uds)))
        if options.host is not None:
            listener = stack.enter_context(listen.tcp_socket(options.host, options.port))
            sockets.append(listener)
            port = int(listener.getsockname()[1])
        if not sockets:
            raise ListenError(
                "The server has nothing to listen on.", "Name an address with --host or a socket with --uds."
            )
        yield sockets, port
