"""The options of a server, from its command line or from the client that starts it.

This module imports nothing that takes long, because the engine's process is started right after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dls.contract import DEFAULT_PORT, DEFAULT_TTL, LaunchFile
from dls.credentials import make_secret
from dls.engine_choice import REGION
from dls.errors import ListenError
from dls.server import sockets
from dls.weights import ModelSpec


@dataclass(frozen=True)
class EngineOptions:
    """The user's options for engines; an engine ignores those that do not concern it."""

    device: str = "auto"
    """The device to compute on: auto, cpu, mps, cuda or cuda:N."""
    models: ModelSpec = field(default_factory=ModelSpec)
    compile: bool = False
    """Whether torch compiles the network."""
    native_api: bool = True
    """Whether the engine's native API is served in addition to ITK-SNAP's, where the engine has one."""


@dataclass(frozen=True)
class ServeOptions:
    """The options of a server."""

    host: str | None = "127.0.0.1"
    """Address to listen on; None opens no port."""
    port: int = DEFAULT_PORT
    uds: Path | None = None
    """Unix socket to listen on."""
    engine: str = REGION
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    stand_in: bool = False
    """Whether the engine's model is listed under nnInteractive's name too."""
    secret: str | None = field(default=None, repr=False)
    open: bool = False
    """Whether a server that other computers can reach accepts requests without a secret."""
    allow_hosts: tuple[str, ...] = ()
    """Further names under which clients may address the server."""
    memory: int | None = None
    """Bytes that all images together may take; by default a share of the machine's memory."""
    session_dir: Path | None = None
    session_ttl: float = DEFAULT_TTL
    """Seconds without use after which a session's files are removed."""
    session_disk: int = 0
    """Bytes that the files of all sessions may take; 0 for a share of the file system that holds them."""
    idle: float | None = None
    """Seconds without a request after which the server ends; None means that it never ends."""
    launch: LaunchFile | None = None
    """The launch file of a server that a client started; None for one that a user started."""
    page: bool = True
    """Whether the page is served where it may be."""

    @property
    def is_public(self) -> bool:
        """Whether other computers can reach the server."""
        return self.host is not None and self.host not in sockets.LOOPBACK

    @property
    def serves_viewers(self) -> bool:
        """Whether it speaks nnInteractive's own protocol, as napari, 3D Slicer and MITK do."""
        return self.engine == "nninteractive" and self.engine_options.native_api

    @property
    def serves_page(self) -> bool:
        """Whether the page is served: only by what a user started, and where no other computer gets in."""
        is_private = self.host is not None and not self.is_public and not self.open
        return self.page and is_private and self.launch is None

    @property
    def name(self) -> str:
        """Name of the folder with the server's sessions, by which the next server finds them."""
        return self.launch.name if self.launch else "serve"


def from_launch_file(path: Path) -> ServeOptions:
    """Read the options that a client wrote for the server that it starts. Raises ListenError."""
    try:
        file = LaunchFile.parse(path.read_text(encoding="utf-8"))
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
        session_disk=file.session_disk,
        idle=file.idle or None,
        launch=file,
    )


def _path(name: str | None) -> Path | None:
    return Path(name).expanduser() if name else None
