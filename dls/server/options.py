"""What a server is told to do: by its command line, or by the client that starts it.

Imports nothing that takes long: the engine's process is begun as soon as this is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dls.contract import DEFAULT_ENGINE, DEFAULT_PORT, DEFAULT_TTL, LaunchFile
from dls.errors import ListenError
from dls.server import sockets
from dls.server.http.access import make_secret
from dls.weights import ModelSpec


@dataclass(frozen=True)
class EngineOptions:
    """What the user chose; an engine takes what concerns it."""

    device: str = "auto"
    models: ModelSpec = field(default_factory=ModelSpec)
    compile: bool = False
    native_api: bool = True
    """Whether the engine's own protocol is served too, where it has one."""


@dataclass(frozen=True)
class ServeOptions:
    """What the server is to do; `host` None opens no port."""

    host: str | None = "127.0.0.1"
    port: int = DEFAULT_PORT
    uds: Path | None = None
    engine: str = DEFAULT_ENGINE
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    stand_in: bool = False
    secret: str | None = field(default=None, repr=False)
    open: bool = False
    allow_hosts: tuple[str, ...] = ()
    memory: int | None = None
    """Bytes that all images may take together; by default a share of the machine's memory."""
    session_dir: Path | None = None
    session_ttl: float = DEFAULT_TTL
    """Seconds."""
    idle: float | None = None
    """Seconds without a request after which the server ends; None for never."""
    launch: LaunchFile | None = None
    """What a server that was started from elsewhere is told."""

    @property
    def is_public(self) -> bool:
        """Whether other computers can reach it."""
        return self.host is not None and self.host not in sockets.LOOPBACK

    @property
    def name(self) -> str:
        """What its sessions' folder is called: whatever server is started next finds them there."""
        return self.launch.name if self.launch else "serve"


def from_launch_file(path: Path) -> ServeOptions:
    """Read the options that a client wrote for a server that it starts; raises ListenError."""
    try:
        file = LaunchFile.parse(path.read_text())
    except (OSError, ValueError) as error:
        raise ListenError(f"The launch file {path} can't be read ({type(error).__name__}).") from error
    spec = ModelSpec(file.model, _path(file.models_path), file.network, file.insecure, _path(file.ca_bundle))
    return ServeOptions(
        host="127.0.0.1" if file.tcp else None,
        port=0,
        uds=Path(file.uds),
        engine=file.engine,
        engine_options=EngineOptions(file.device, spec, file.compile, file.native_api),
        stand_in=file.stand_in,
        secret=make_secret(),
        session_dir=_path(file.session_dir),
        session_ttl=file.session_ttl,
        idle=file.idle or None,
        launch=file,
    )


def _path(name: str | None) -> Path | None:
    return Path(name).expanduser() if name else None
