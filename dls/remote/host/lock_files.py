"""The lock files: exact versions and hashes of the packages, made with each release, and the hosts that they fit."""

from __future__ import annotations

import functools
import hashlib
import json
from importlib import resources

from dls.remote.host.probe import HostReport, Python

PLATFORMS = (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64"))
"""Systems and machines for which `scripts/lock` makes the files."""
DEFAULT_PYTHON = "3.12"
"""Version of the Python that uv fetches where the host has none that is new enough."""
OLDEST_DRIVER = 580
"""Major version of the NVIDIA driver from which on the locked torch, a build for CUDA 13, works."""


@functools.cache
def read(name: str) -> str:
    """Return the text of the lock file of that name: an engine's, or `uv`."""
    return resources.files("dls.remote.host").joinpath("locks", f"{name}.txt").read_text(encoding="utf-8")


@functools.cache
def _read_sizes() -> dict[str, dict[str, dict[str, int]]]:
    """Return the bytes of each lock file's packages, by its name, the kind of host and the version of Python."""
    text = resources.files("dls.remote.host").joinpath("locks", "sizes.json").read_text(encoding="utf-8")
    sizes: dict[str, dict[str, dict[str, int]]] = json.loads(text)
    return sizes


def find_size(name: str, report: HostReport, python: Python | None) -> int | None:
    """Return how many bytes the packages of the lock file have for the host and the Python of its environment.

    None lets uv fetch a Python; returns None where the size is unknown.
    """
    version = ".".join(map(str, python.version[:2])) if python else DEFAULT_PYTHON
    return _read_sizes().get(name, {}).get(report.platform, {}).get(version)


def digest(text: str) -> str:
    """Return the digest by which complete.json names a lock file."""
    return hashlib.sha256(text.encode()).hexdigest()


def fits(report: HostReport, python: Python | None, *, needs_torch: bool) -> bool:
    """Return whether the lock files fit the host and the Python of its environment; None lets uv fetch one that fits.

    The torch for Linux in them is the build for CUDA 13: a host without a GPU and an older driver need another one,
    with other hashes.
    """
    if (report.system, report.machine) not in PLATFORMS:
        return False
    if python is not None and not (3, 10) <= python.version[:2] <= (3, 14):
        return False
    if not needs_torch or report.system == "Darwin":
        return True
    drivers = [gpu.driver_version for gpu in report.gpus]
    return bool(drivers) and min(drivers) >= OLDEST_DRIVER
