"""How much memory there is to use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SHARE = 0.6
"""Of the memory that this process may have, how much images may take."""
FALLBACK = 8 << 30
"""Bytes, where the system does not say."""
CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total() -> int:
    """Return the bytes this process may have: the machine's, or its container's where that is less."""
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
    """Return the bytes that the images of all sessions may take together."""
    return int(total() * SHARE)
