"""The GPUs that `nvidia-smi` reports. The laptop and the host both use this module, so it imports nothing of either."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

LIMIT_SECONDS = 10
"""Seconds that `nvidia-smi` may take on this machine."""
FIELDS = ("index", "name", "memory.total", "memory.free", "driver_version", "compute_cap")
"""Fields of the query; drivers before 510 do not know `compute_cap` and refuse the whole query."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as `nvidia-smi` reports it; memory in MiB."""

    index: int
    name: str
    memory_total: int
    memory_free: int
    driver: str
    compute_capability: str = ""

    @property
    def driver_version(self) -> int:
        """Major version of the driver; 0 where it is unknown."""
        return _number(self.driver.split(".")[0])

    @classmethod
    def read(cls, fields: object) -> Gpu | None:
        """Return the GPU from its fields as a server sends them; None for anything else."""
        if not isinstance(fields, dict):
            return None
        index, total, free = numbers = [fields.get(name) for name in ("index", "memory_total", "memory_free")]
        if not all(isinstance(number, int) and 0 <= number < 1 << 62 for number in numbers):
            return None
        assert isinstance(index, int) and isinstance(total, int) and isinstance(free, int)
        return cls(index, str(fields.get("name", ""))[:80], total, free, str(fields.get("driver", ""))[:40])

    def __str__(self) -> str:
        return f"{self.name}, {self.memory_free / 1024:.1f} of {self.memory_total / 1024:.1f} GiB free"


def query(fields: tuple[str, ...] = FIELDS) -> str:
    """Return the `nvidia-smi` command line; it needs no quoting in a shell."""
    return f"nvidia-smi --query-gpu={','.join(fields)} --format=csv,noheader,nounits"


def parse(text: str) -> tuple[Gpu, ...]:
    """Parse the output of the command that `query` returns; lines that describe no GPU are ignored."""
    gpus = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) not in (len(FIELDS) - 1, len(FIELDS)) or not _is_number(cells[0]):
            continue
        total, free = (_number(cell) for cell in cells[2:4])
        capability = cells[5] if len(cells) == len(FIELDS) else ""
        gpus.append(Gpu(int(cells[0]), cells[1], total, free, cells[4], capability))
    return tuple(gpus)


def _is_number(text: str) -> bool:
    # str.isdigit accepts `²`, which int refuses; more digits than a real figure has are no figure either.
    return text.isascii() and text.isdigit() and len(text) <= 18


def _number(text: str) -> int:
    return int(text) if _is_number(text) else 0


def most_free(gpus: tuple[Gpu, ...]) -> Gpu | None:
    """Return the GPU with the most free memory; the one with the lower index wins a tie."""
    return max(gpus, key=lambda gpu: (gpu.memory_free, -gpu.index), default=None)


def local() -> tuple[Gpu, ...]:
    """Return this machine's GPUs; none where `nvidia-smi` is missing or does not answer."""
    for fields in (FIELDS, FIELDS[:-1]):
        try:
            status, output = _run(query(fields).split())
        except (OSError, subprocess.TimeoutExpired):
            return ()
        if status == 0:
            return parse(output)
    return ()


def _run(command: list[str]) -> tuple[int, str]:
    """Run a command and return its status and its output; raises TimeoutExpired for one that takes too long.

    `subprocess.run` would then wait for it without a limit: a process that waits for its driver can't even be killed.
    """
    # On Windows a program does not even start while its standard input is a pipe that another thread of ours reads.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        process.wait(1)
        raise
    return process.returncode, output
