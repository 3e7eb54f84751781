"""Memory that the engine's process maps too, so that no volume is copied between the processes."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

SPARSE = sys.platform == "linux"
"""Whether a block may be created far larger than the data that will be written to it."""


class SharedBlock:
    """A block of zeros that another process of this user can map; it takes memory only where it is written.

    On Linux the block is an anonymous file in memory, elsewhere a temporary file that only this user can open.
    """

    def __init__(self, size: int) -> None:
        self.path: str
        """Name of the file that another process maps."""
        if SPARSE:
            descriptor = os.memfd_create("dls")
            file: IO[bytes] = os.fdopen(descriptor, "r+b", buffering=0)
            self.path = f"/proc/{os.getpid()}/fd/{descriptor}"
        else:
            file = tempfile.NamedTemporaryFile(prefix="dls-", buffering=0)  # noqa: SIM115
            self.path = file.name
        file.truncate(size)
        self.memory = mmap.mmap(file.fileno(), size)
        self._file = file
        self.close = weakref.finalize(self, file.close)
        """Close the file; the memory is freed when no process maps it any more."""

    def array(self, shape: tuple[int, ...], kind: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the beginning of the block as an array, which keeps the memory alive."""
        count = int(np.prod(shape))
        return np.frombuffer(self.memory, kind, count).reshape(shape)

    def append(self, data: bytes) -> None:
        """Write the next bytes through the file, because writing through the map costs a page fault for each page.

        Writing 300 MiB into new memory took 257 ms through the map and 154 ms through the file, which also releases
        the interpreter lock.
        """
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def truncate(self, size: int) -> None:
        """Free the memory after the first `size` bytes."""
        if sys.platform != "win32":  # Windows can't truncate a mapped file
            self._file.truncate(size)


def attach(path: str, shape: tuple[int, ...], kind: npt.DTypeLike) -> npt.NDArray[Any]:
    """Map another process's block as an array."""
    with Path(path).open("r+b") as file:
        count = int(np.prod(shape))
        memory = mmap.mmap(file.fileno(), count * np.dtype(kind).itemsize)
    return np.frombuffer(memory, kind, count).reshape(shape)
