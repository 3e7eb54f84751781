"""What the files of all sessions may take on the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dls.contract import DISK_SHARE, MIN_DISK


def default_limit(home: Path) -> int:
    """Return the bytes that sessions may take in the folder by default: a share of its file system.

    A small file system sets the limit itself, by being full.
    """
    return max(int(shutil.disk_usage(home).total * DISK_SHARE), MIN_DISK)


def taken(folders: tuple[Path, ...]) -> int:
    """Return the bytes that the files in the folders take on the disk; a file with several names counts once."""
    sizes = {_identity(status): _on_disk(status) for root in folders for status in _statuses(root)}
    return sum(sizes.values())


def choose_unused(surplus: int, unused: Sequence[Path], used: Iterable[Path]) -> list[Path]:
    """Return how many of the unused sessions' folders have to go, from the first on, to free so many bytes.

    A file frees its bytes when the last session goes that has it. Empty where all of them would not be enough.
    """
    owners = Counter(_identity(status) for folder in (*unused, *used) for status in _statuses(folder))
    chosen = []
    for folder in unused:
        for status in _statuses(folder):
            owners[_identity(status)] -= 1
            surplus -= 0 if owners[_identity(status)] else _on_disk(status)
        chosen.append(folder)
        if surplus <= 0:
            return chosen
    return []


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _on_disk(status: os.stat_result) -> int:
    return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512


def _statuses(root: Path) -> Iterator[os.stat_result]:
    """Yield what the system says of each file; those that go away meanwhile are left out."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(root):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    yield from _statuses(Path(entry.path))
                else:
                    yield entry.stat(follow_symlinks=False)
