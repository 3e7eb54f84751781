"""The third-party packages that each engine needs on the host, and the archive of our own code."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import dls
from dls.engine_choice import AUTO
from dls.errors import TargetError

SERVER = (
    "click>=8.1",
    "httptools>=0.6",
    "isal>=1.7",
    "multipart>=2,<3",
    "numpy>=1.26",
    "scikit-image>=0.25",
    "scipy>=1.13",
    "starlette>=0.46",
    "uvicorn>=0.34",
)
"""Packages of the server with its region engine: the extra `server` of pyproject.toml, and click to start it."""

ENVIRONMENT_FORMAT = 1
"""Number in every environment's key; raised when environments are made differently."""


@dataclass(frozen=True)
class Requirements:
    """The packages that an engine needs, and the disk space for them in MiB."""

    packages: tuple[str, ...]
    disk_mib: int
    cuda_disk_mib: int = 0
    """Disk space in MiB where they come with CUDA; 0 where they never do."""
    lock: str = ""
    """Name of the lock file with the exact versions; empty where there is none."""

    def disk_on(self, has_gpu: bool) -> int:
        """Return the disk space in MiB that they need on a host with or without a GPU."""
        return self.cuda_disk_mib if has_gpu and self.cuda_disk_mib else self.disk_mib

    @property
    def key(self) -> str:
        """Digest of the packages as they are required, so that equal requirements share an environment."""
        text = "\n".join([f"format {ENVIRONMENT_FORMAT}", *sorted(self.packages)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


SSH_SERVER = Requirements(("asyncssh>=2.21",), disk_mib=150, lock="ssh_server")
"""What a host without sshd needs to serve SSH inside a command's input and output."""

NNINTERACTIVE = (*SERVER, "nninteractive>=2.6,<3", "torch>=2.6,!=2.9.*")
"""Packages of the extra `nninteractive`, which excludes torch 2.9: its conv3d takes too much memory."""

ENGINES = {
    # Measured: 327 MiB; 1,935 MiB with torch for the CPU, 6,105 MiB with CUDA. Caches on the same disk are hard links.
    "region": Requirements(SERVER, disk_mib=600, lock="region"),
    "nninteractive": Requirements(NNINTERACTIVE, disk_mib=2500, cuda_disk_mib=7000, lock="nninteractive"),
}
LARGEST = "nninteractive"
"""The engine that needs the most."""


def requirements(engine: str) -> Requirements:
    """Return the packages that the engine needs, for `auto` the most; raises TargetError for an unknown engine."""
    if engine == AUTO:
        return ENGINES[LARGEST]
    if engine not in ENGINES:
        known = ", ".join(sorted([AUTO, *ENGINES]))
        raise TargetError(f"There is no engine named {engine!r}.", f"Choose one of: {known}.")
    return ENGINES[engine]


CLIENT_FOLDERS = ("demo", "remote", "segment")
"""Folders of our package that no server imports, as `tests/test_imports.py` proves."""
CLIENT_COMMANDS = (
    "about", "bars", "check", "completion", "console", "known_hosts", "live", "live_lines", "panels", "profiles",
    "reporter", "status", "steps", "tables", "uninstall",
)  # fmt: skip
"""Modules of `dls/cli/` that a server which a client has started does not import either."""


@dataclass(frozen=True)
class Code:
    """The Python files of our package that a host needs, which travel there as a zip archive keyed by its content."""

    files: tuple[tuple[str, bytes], ...]

    @classmethod
    def installed(cls, package: Path | None = None) -> Code:
        """Read the files of the package that runs now, from a wheel or from a checkout; `package` names another one.

        Git for Windows writes the line ends of Windows: the same release must be the same code from all computers.
        """
        package = package or Path(dls.__file__).resolve().parent
        paths = sorted(path.relative_to(package) for path in package.rglob("*.py"))
        left_out = {Path("cli", f"{name}.py") for name in CLIENT_COMMANDS}
        sent = [
            path
            for path in paths
            if path.parts[0] not in CLIENT_FOLDERS and path not in left_out and "__pycache__" not in path.parts
        ]
        read = {path: (package / path).read_bytes().replace(b"\r\n", b"\n") for path in sent}
        return cls(tuple((f"dls/{path.as_posix()}", content) for path, content in read.items()))

    @cached_property
    def key(self) -> str:
        """Digest of all names and contents; scripts/verify.py computes it on the host."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files):
            digest.update(f"{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()[:16]

    def archive(self) -> bytes:
        """Return the zip archive; equal content gives equal bytes."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self.files:
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()
