"""What a server is told to do: by its command line, or by the client that starts it.

Imports nothing that takes long: the engine's process is begun as soon as this is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from dls.errors import ListenError
from dls.server import sockets
from dls.server.http.access import make_secret
from dls.weights import ModelSpec

DEFAULT_PORT = 8911
LAUNCH_FORMAT = 1
DEFAULT_TTL = 7 * 86400.0
"""Seconds without use after which a session's files are removed."""
PATHS = ("models_path", "ca_bundle", "session_dir")


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
    engine: str = "region"
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
    launch: Launch | None = None

    @property
    def is_public(self) -> bool:
        """Whether other computers can reach it."""
        return self.host is not None and self.host not in sockets.LOOPBACK

    @property
    def name(self) -> str:
        """What its sessions' folder is called: whatever server is started next finds them there."""
        return self.launch.name if self.launch else "serve"


@dataclass(frozen=True)
class Launch:
    """What a server that was started from elsewhere is told, and where it writes how it is reached."""

    folder: Path
    """Its run directory: state, lock, and why it ended."""
    name: str
    code: str
    request: str
    log: str
    replaces: int = 0
    """The process number of a server that is being ended; this one waits for it."""


def from_launch_file(path: Path) -> ServeOptions:
    """Read the options that a client wrote for a server it starts."""
    try:
        said = json.loads(path.read_text())
        if said["format"] != LAUNCH_FORMAT:
            raise ValueError("format")
        known = (said["name"], said["code"], said["request"], said["log"], int(said.get("replaces", 0)))
        launch = Launch(Path(said["run_dir"]), *known)
        tcp = bool(said["tcp"])
        models_path, ca_bundle, session_dir = (Path(said[name]).expanduser() if said[name] else None for name in PATHS)
        wish = ModelSpec(said["model"], models_path, said["network"], said["insecure"], ca_bundle)
        return ServeOptions(
            host="127.0.0.1" if tcp else None,
            port=0,
            uds=Path(said["uds"]),
            engine=said["engine"],
            engine_options=EngineOptions(said["device"], wish, said["compile"], said["other_door"]),
            stand_in=bool(said["stand_in"]),
            secret=make_secret(),
            session_dir=session_dir,
            session_ttl=float(said["session_ttl"]),
            idle=float(said["idle"]) or None,
            launch=launch,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ListenError(f"The launch file {path} can't be read ({type(error).__name__}).") from error
