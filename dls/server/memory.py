"""Determine how much memory this process may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

IMAGE_SHARE = 0.6
"""Share of this process's memory that images may take by default."""
FALLBACK = 8 << 30
"""Bytes assumed where the system does not report its memory."""
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with a container's memory limit in bytes: cgroup v2, then cgroup v1."""


def total() -> int:
    """Return the bytes this process may use: the machine's memory, or its container's limit where that is lower."""
    limits = [_machine()]
    for name in CONTAINER_LIMITS:
        try:
            limits.append(int(Path(name).read_text()))
        except (OSError, ValueError):
            continue
    return min(limits)


def _machine() -> int:
    if sys.platform == "win32":
        return FALLBACK
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return FALLBACK


def default_budget() -> int:
    """Return the bytes that the images of all sessions together may take by default."""
    return int(total() * IMAGE_SHARE)
