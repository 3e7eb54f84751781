"""Disks that hold little or nothing: small ones, read-only ones, ones with a quota."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def disk(path: Path, options: str) -> Iterator[Path]:
    """Mount a memory-backed disk with these options at the path; skip the test where mounting is not permitted."""
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def small_disk(path: Path, size: str) -> contextlib.AbstractContextManager[Path]:
    """Mount a memory-backed disk of that size at the path; skip the test where mounting is not permitted."""
    return disk(path, f"size={size}")


@contextlib.contextmanager
def disk_with_quota(path: Path, mib: int) -> Iterator[Path]:
    """Mount a disk with much free space and yield a folder on it that may hold so many MiB; needs btrfs-progs."""
    path.mkdir()
    image = path.with_suffix(".img")
    with image.open("wb") as stream:
        stream.truncate(2 << 30)
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("mkfs.btrfs is not installed (on Debian and Ubuntu: apt install btrfs-progs)")
    subprocess.run(["mkfs.btrfs", "-q", "-f", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, path], capture_output=True).returncode:
        pytest.skip("needs the right to mount, and btrfs")
    try:
        for words in (
            ["quota", "enable", str(path)],
            ["subvolume", "create", str(path / "home")],
            ["qgroup", "limit", f"{mib}M", str(path / "home")],
        ):
            subprocess.run(["btrfs", *words], check=True, capture_output=True)
        yield path / "home"
    finally:
        subprocess.run(["umount", path], check=True)
