"""Options of the server that `connect` starts on the host, and the choice of its GPU."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace

from dls.contract import DEFAULT_ENGINE, DEFAULT_IDLE, DEFAULT_TTL
from dls.engine_choice import AUTO, NNINTERACTIVE, REGION
from dls.errors import HostError
from dls.gpus import Gpu, most_free

NOT_IN_KEY = ("session_ttl_days", "idle_minutes", "session_disk_gib")
"""Options in which servers may differ and still serve the same client."""
LEFT_OUT = {"engine": REGION}
"""Values that are left out of the digest, where they were the default of the first release and are not any more."""
KEY_NAMES = {"native_api": "other_door"}
"""Names under which options enter the digest, where the first release called them otherwise."""


@dataclass(frozen=True)
class ServerOptions:
    """Options of the server on the host; servers with different options run side by side. Paths are the host's."""

    engine: str = DEFAULT_ENGINE
    """Name of the engine: `region`, `nninteractive`, or `auto`: the latter where the host has a GPU that can run it."""
    device: str = "auto"
    """Where the engine computes: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    gpu: int | None = None
    """Number of the GPU; by default the one with the most free memory."""
    stand_in: bool = False
    """List the region engine under nnInteractive's name too."""
    tcp: bool = False
    """Listen on a loopback port with a secret too, for hosts that forbid the forwarding of Unix sockets."""
    model: str | None = None
    """Id or folder of the model; by default the official one."""
    models_path: str | None = None
    """Folder with the models; by default `$NNINTERACTIVE_MODEL_DIR` or `~/.nninteractive`."""
    network: bool = True
    """Allow the download of models."""
    insecure: bool = False
    """Check no certificates when models are downloaded."""
    ca_bundle: str | None = None
    """File with the certificates to trust when models are downloaded."""
    compile: bool = False
    """Compile the network: a slower start, faster clicks."""
    native_api: bool = True
    """Serve the engine's own protocol too."""
    session_dir: str | None = None
    """Folder in which sessions are stored; by default on local disks."""
    session_ttl_days: float = DEFAULT_TTL / 86400
    """Days without use after which a session is removed."""
    idle_minutes: float = DEFAULT_IDLE / 60
    """Minutes without a request and without a client after which the server ends; 0 for never."""
    session_disk_gib: float = 0.0
    """GiB that the files of all sessions may take; 0 for a share of the file system that holds them."""

    @property
    def key(self) -> str:
        """Digest of the options that a running server must share with the client.

        Options with their default value are left out, so that a newer version with one more option still finds the
        servers of an older one.
        """
        chosen = {
            KEY_NAMES.get(option.name, option.name): value
            for option in fields(self)
            if option.name not in NOT_IN_KEY
            and (value := getattr(self, option.name)) != LEFT_OUT.get(option.name, option.default)
        }
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def accepted(self) -> tuple[ServerOptions, ...]:
        """The options of servers that will do: with a loopback port or without, and of either engine for `auto`."""
        engines = (NNINTERACTIVE, REGION) if self.engine == AUTO else (self.engine,)
        return tuple(replace(self, engine=engine, tcp=tcp) for engine in engines for tcp in (False, True))

    @property
    def needs_gpus(self) -> bool:
        """Whether the host's GPUs decide how the server is installed and started; the region engine uses none."""
        return self.engine != "region" or self.gpu is not None or self.device.startswith("cuda:")

    @property
    def serves_viewers(self) -> bool:
        """Whether the server speaks nnInteractive's own protocol, as napari, 3D Slicer and MITK do."""
        return self.engine == "nninteractive" and self.native_api

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that ITK-SNAP shows: that of the engine, and the one that it stands in for."""
        own = "nnInteractive" if self.engine == NNINTERACTIVE else self.engine
        return (own, "nnInteractive") if self.stand_in and self.engine == REGION else (own,)

    def run_dir(self, base: str) -> str:
        """Return the run directory of a server with these options, in the host's directory for all of them."""
        return f"{base}/{self.key}"


def choose_gpu(gpus: tuple[Gpu, ...], options: ServerOptions) -> Gpu | None:
    """Return the GPU that the options name, by default the one with the most free memory; None on a host without any.

    Raises HostError when the options name two GPUs, or one that the host does not have.
    """
    wanted = options.gpu
    if options.device.startswith("cuda:"):
        number = int(options.device.removeprefix("cuda:"))
        if wanted not in (None, number):
            raise HostError(f"--gpu {wanted} and --device {options.device} name two GPUs.", "Leave one of them out.")
        wanted = number
    if wanted is None:
        return most_free(gpus)
    for gpu in gpus:
        if gpu.index == wanted:
            return gpu
    existing = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus) or "none"
    raise HostError(f"The host has no GPU number {wanted}; it has: {existing}.", "Choose another one with --gpu.")
