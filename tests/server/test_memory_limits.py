"""How much memory a process may have: the machine's, its control groups' and its address space's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dls.server import memory_limits

GIB = 1 << 30


def limits(folder: Path, groups: str, files: dict[str, str]) -> list[int]:
    """Return the limits that are read from made-up groups; `files` has paths below the root and their contents."""
    proc, root = folder / "cgroup", folder / "root"
    proc.write_text(groups)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [*memory_limits._control_group_limits(proc, root)]


def test_the_limit_of_the_own_group_in_version_2(tmp_path: Path) -> None:
    """Row 10: systemd and Slurm set the limit on the process's own group or on one above it; all of them count."""
    slurm = "system.slice/slurmstepd.scope/job_7/step_0"
    files = {
        f"{slurm}/memory.max": "max\n",
        f"{Path(slurm).parent}/memory.max": f"{2 * GIB}\n",
        "system.slice/memory.max": f"{8 * GIB}\n",
    }
    assert sorted(limits(tmp_path, f"0::/{slurm}\n", files)) == [2 * GIB, 8 * GIB]


def test_the_limit_of_a_container_is_at_the_root(tmp_path: Path) -> None:
    """Row 10: in a container of its own name space the process's group is the root, whose file has the limit."""
    assert limits(tmp_path, "0::/\n", {"memory.max": f"{GIB}\n"}) == [GIB]
    assert limits(tmp_path, "0::/../../outside\n", {"memory.max": f"{GIB}\n"}) == [GIB]


def test_the_limit_in_version_1(tmp_path: Path) -> None:
    """Row 10: version 1 has a hierarchy for memory, and writes a number near 2^63 where there is no limit."""
    groups = "12:cpu,cpuacct:/other\n5:memory:/slurm/uid_1000/job_7\n1:name=systemd:/x\n"
    files = {
        "memory/slurm/uid_1000/job_7/memory.limit_in_bytes": f"{3 * GIB}\n",
        "memory/slurm/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu,cpuacct/other/memory.limit_in_bytes": "1\n",
    }
    assert limits(tmp_path, groups, files) == [3 * GIB]


@pytest.mark.parametrize("groups", ["", "nonsense", "0::", "0:\n\n::", "0::/absent\n"])
def test_what_can_not_be_read_is_no_limit(tmp_path: Path, groups: str) -> None:
    """Row 10: without groups, or with files that say nothing sensible, the machine's memory counts."""
    assert limits(tmp_path, groups, {"other/memory.max": "1"}) == []
    assert [*memory_limits._control_group_limits(tmp_path / "absent", tmp_path)] == []
    assert memory_limits.total() > 0


@pytest.mark.parametrize("text", ["", "max", "0", "-1", "x"])
def test_a_file_without_a_number_is_no_limit(tmp_path: Path, text: str) -> None:
    """Row 10: only a positive number is a limit."""
    assert limits(tmp_path, "0::/\n", {"memory.max": text}) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_half_of_the_address_space_counts() -> None:
    """Row 10: under `ulimit -v` half of the limit counts, because libraries reserve far more than they use."""
    code = "from dls.server import memory_limits; print(memory_limits.total())"
    found = subprocess.run(
        ["bash", "-c", 'ulimit -v 2000000; exec "$@"', "bash", sys.executable, "-c", code],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert int(found.stdout) == min(memory_limits.total(), 1000000 * 1024)
