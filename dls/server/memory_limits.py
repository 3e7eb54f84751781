"""Determine how much memory this process may use: the machine's, or less where a limit says so."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

BUDGET_SHARE = 0.6
"""Share of the memory that this process may have which images may take."""
FALLBACK_BYTES = 8 << 30
"""Assumed where the system does not say."""
UNLIMITED = 1 << 60
"""Control groups write "max", or in version 1 a number near the largest that they can, where there is no limit."""


def total() -> int:
    """Return the bytes this process may have: the least of the machine's memory and of every limit set on it."""
    return min([_machine(), *_control_group_limits(), *_address_space_limit()])


def _machine() -> int:
    if sys.platform == "win32":
        return FALLBACK_BYTES
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return FALLBACK_BYTES


def _control_group_limits(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Yield the limits of this process's control group and of every group above it (cgroups(7), versions 1 and 2).

    Slurm and systemd set them on a group of their own below the root, where a container sets them on the root itself.
    """
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = PurePosixPath("/", path.lstrip("/"))
        for each in (group, *group.parents):
            limit = _read_limit(base / each.relative_to("/") / name)
            if limit is not None:
                yield limit


def _read_limit(path: Path) -> int | None:
    try:
        limit = int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return limit if 0 < limit < UNLIMITED else None


def _address_space_limit() -> list[int]:
    """Return half of the limit of `ulimit -v`, where there is one: libraries reserve far more than they use."""
    if sys.platform == "win32":
        return []
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [soft // 2] if 0 < soft < UNLIMITED else []


def default_budget() -> int:
    """Return the bytes that the images of all sessions may take together."""
    return int(total() * BUDGET_SHARE)
