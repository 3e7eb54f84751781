"""Which files a parcel needs: uv is asked for the target's platform and Python, not for this computer's.

What uv is told and what it answers are values (`plan`, `read_lock`); only `resolve` runs it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dls.errors import TargetError
from dls.remote.host import lock_files
from dls.remote.host.packages import Requirements
from dls.remote.parcel.format import NO_CUDA, PLATFORMS, PYTHONS, SHA256, WHEEL, needed_glibc
from dls.remote.parcel.uv import FetchError, run_uv
from dls.remote.toml import tomllib

TORCH_BUILDS = ((11, 8), (12, 4), (12, 6), (12, 8), (13, 0))
"""Versions of CUDA for which torch's own index has builds that the engines can use."""
LOCKED_CUDA = (13, 0)
"""CUDA of the torch in the release's lock file, which the package index has."""
BOUND_TO_TORCH = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*|pytorch-.*)==")
"""Packages whose version another build of torch decides."""
CUDA_VERSION = re.compile(r"(\d{2})(?:\.(\d{1,2}))?")


@dataclass(frozen=True)
class Target:
    """What a parcel is for."""

    engine: str
    platform: str
    python: str
    cuda: str = ""
    """Version of CUDA as the user wrote it, `cpu`, or nothing for the release's own choice."""

    def check(self) -> None:
        """Raise TargetError for a platform, a Python or a version of CUDA for which no parcel can be made."""
        if self.platform not in PLATFORMS:
            raise TargetError(f"There is no parcel for {self.platform!r}.", f"Choose one of: {', '.join(PLATFORMS)}.")
        if self.python not in PYTHONS:
            raise TargetError(
                f"There is no parcel for Python {self.python!r}.", f"Choose one of: {', '.join(PYTHONS)}."
            )


@dataclass(frozen=True)
class Wanted:
    """What uv is asked to resolve."""

    requirements: str
    """Text of a requirements file."""
    constraints: str = ""
    """Text of a constraints file, which may turn out to be too strict; empty for none."""
    backend: str = ""
    """Build of torch, as uv names it; empty for what the package index has."""
    cuda: str = ""
    """The version of CUDA that torch is built for, `cpu`, or nothing where no torch is needed."""

    @property
    def is_locked(self) -> bool:
        """Whether exactly the release's lock file is wanted."""
        return "--hash=" in self.requirements


@dataclass(frozen=True)
class Download:
    """A file that the parcel needs, as the index offers it."""

    name: str
    location: str
    """URL, or path on this computer."""
    size: int | None
    sha256: str
    """Empty where the index names no digest."""

    @property
    def is_source(self) -> bool:
        """Whether it is a source distribution, from which a wheel has to be built."""
        return not self.name.endswith(".whl")


def plan(target: Target, needed: Requirements) -> Wanted:
    """Decide what uv is asked: the release's lock file where it fits the target, else its versions as constraints.

    Raises TargetError for a version of CUDA for which there is no torch.
    """
    lock = lock_files.read(needed.lock)
    if not any(package.startswith("torch") for package in needed.packages):
        if target.cuda:
            raise TargetError(
                f"The engine {target.engine} needs neither CUDA nor torch.", "Leave out --cuda and --cpu."
            )
        return Wanted(lock)
    build = _choose_build(target.cuda)
    if build == LOCKED_CUDA:
        return Wanted(lock, cuda=_dotted(LOCKED_CUDA))
    pinned = [line.rstrip(" \\") for line in lock.splitlines() if not line.startswith(" ")]
    constraints = [line for line in pinned if not BOUND_TO_TORCH.match(line)]
    backend, cuda = ("cpu", NO_CUDA) if build is None else (f"cu{build[0]}{build[1]}", _dotted(build))
    return Wanted("\n".join(needed.packages), "\n".join(constraints), backend, cuda)


def _choose_build(cuda: str) -> tuple[int, int] | None:
    """Return the newest build of torch that a driver for this CUDA runs; None for the build without CUDA.

    A driver runs every minor version of the CUDA that it is made for, and all older ones. Of several builds for that
    major version the newest one that it knows is taken.
    """
    if cuda == NO_CUDA:
        return None
    if not cuda:
        return LOCKED_CUDA
    match = CUDA_VERSION.fullmatch(cuda)
    wanted = (int(match[1]), int(match[2] or 99)) if match else (0, 0)
    same = [build for build in TORCH_BUILDS if build[0] == wanted[0]] or [b for b in TORCH_BUILDS[-1:] if b < wanted]
    if not same:
        builds = ", ".join(map(_dotted, TORCH_BUILDS))
        raise TargetError(
            f"There is no torch for CUDA {cuda!r}.",
            f"There are builds for {builds}; `nvidia-smi` names the newest one.",
        )
    return max((build for build in same if build <= wanted), default=same[0])


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def resolve(wanted: Wanted, target: Target, *, libc: str = "gnu", ca_bundle: Path | None) -> list[Download]:
    """Return the files of all packages for the target; raises FetchError for what uv can't resolve.

    Constraints that leave no solution are left out in a second attempt.
    """
    try:
        return _resolve(wanted, wanted.constraints, target, libc, ca_bundle)
    except FetchError:
        if not wanted.constraints:
            raise
        return _resolve(wanted, "", target, libc, ca_bundle)


def _resolve(wanted: Wanted, constraints: str, target: Target, libc: str, ca_bundle: Path | None) -> list[Download]:
    machine = target.platform.rpartition("-")[2]
    with tempfile.TemporaryDirectory(prefix="dls-pack-") as folder:
        written, result = Path(folder, "requirements.txt"), Path(folder, "pylock.toml")
        written.write_text(wanted.requirements, encoding="utf-8")
        arguments = [
            "pip", "compile", "--quiet", "--python-platform", f"{machine}-unknown-linux-{libc}",
            "--python-version", target.python, "--format", "pylock.toml", "--output-file", str(result),
        ]  # fmt: skip
        if constraints:
            Path(folder, "constraints.txt").write_text(constraints, encoding="utf-8")
            arguments += ["--constraint", str(Path(folder, "constraints.txt"))]
        if wanted.backend:
            arguments += ["--torch-backend", wanted.backend]
        run_uv([*arguments, str(written)], ca_bundle=ca_bundle)
        found = list(read_lock(result.read_text(encoding="utf-8"), Path(folder)))
    if wanted.is_locked:
        _check_locked(found, wanted.requirements)
    return found


def _check_locked(found: list[Download], lock: str) -> None:
    for file in found:
        if f"--hash=sha256:{file.sha256}" not in lock:
            raise FetchError(
                f"The index here offers another {file.name} than the one that was locked.",
                "Does a mirror replace packages? Ask who runs it.",
            )


def read_lock(text: str, folder: Path) -> Iterator[Download]:
    """Yield the one file to take of each package in a pylock.toml (PEP 751), which lies in the folder."""
    for package in tomllib.loads(text).get("packages", []):
        if wheels := [_read_file(wheel, folder) for wheel in package.get("wheels", [])]:
            yield min(wheels, key=_rank)
        elif source := package.get("sdist") or package.get("archive"):
            yield _read_file(source, folder)
        else:
            raise FetchError(
                f"The package {package.get('name')} can't be packed: it is no file of an index.",
                "uv's configuration here takes it from a folder or a repository.",
            )


def _read_file(entry: dict[str, Any], folder: Path) -> Download:
    path = entry.get("path")
    location = str(entry.get("url") or (folder / str(path)).resolve())
    name = str(entry.get("name") or _last_part(location))
    digest = str(entry.get("hashes", {}).get("sha256", ""))
    size = entry.get("size")
    if not (WHEEL.fullmatch(name) or name.endswith((".tar.gz", ".zip"))) or (digest and not SHA256.fullmatch(digest)):
        raise FetchError(
            f"The index offers a file {name[:100]!r}, which is no package.", "Which index is uv told to use?"
        )
    return Download(name, location, size if isinstance(size, int) and size >= 0 else None, digest)


def _last_part(location: str) -> str:
    from urllib.parse import unquote, urlsplit

    path = urlsplit(location).path if "://" in location else location.replace("\\", "/")
    return unquote(path.rpartition("/")[2])


def _rank(wheel: Download) -> tuple[bool, int, str]:
    """Order the wheels of one package: compiled ones first, among them those for the oldest hosts."""
    return (wheel.name.endswith("-any.whl"), needed_glibc(wheel.name), wheel.name)
