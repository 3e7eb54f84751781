"""The descriptors that this process may have open: connections, images and sessions share them."""

from __future__ import annotations

import contextlib
import sys

MAX_DESCRIPTORS = 65_536
"""More are never asked for: some systems allow a thousand million, and some libraries make tables of them."""
MAX_DESCRIPTORS_MACOS = 10_240
"""The most that macOS grants, although it says that there is no limit (OPEN_MAX in its sys/syslimits.h)."""
CONNECTION_SHARE = 8
"""One connection for so many descriptors: an upload takes five of them, and sessions need some too."""
EMPTY_SESSION_SHARE = 4
"""One session without an image for so many descriptors, because each holds its lock."""


def raise_limit() -> None:
    """Raise the soft limit of open files to the hard one, because macOS begins with 256 and Linux with 1024."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_DESCRIPTORS_MACOS if sys.platform == "darwin" else MAX_DESCRIPTORS
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """Return how many files this process may have open at once."""
    if sys.platform == "win32":
        return MAX_DESCRIPTORS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else int(soft)
