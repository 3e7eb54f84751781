"""The lock between the scripts that install and launch on one host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dls.remote.host.scripts import render
from tests.support.processes import until

WAYS = {"flock": ("flock", "perl"), "perl": ("perl",), "link": ()}
"""How a host locks, and which of the two programs it has."""
PROGRAMS = ("sh", "ln", "readlink", "sleep", "tail", "mkdir", "rmdir", "cat", "rm", "kill", "true")
AT_ONCE = 12


def path_with(folder: Path, programs: tuple[str, ...]) -> str:
    """Make a PATH with these programs only, as a small host has them."""
    folder.mkdir()
    for name in (*PROGRAMS, *programs):
        found = shutil.which(name)
        if found is None and name in programs:
            pytest.skip(f"this machine has no {name}")
        if found:
            (folder / name).symlink_to(found)
    return str(folder)


def start(path: str, script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["/bin/sh", "-c", render("lock") + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": path},
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("way", WAYS)
def test_never_two_hold_the_lock(tmp_path: Path, way: str) -> None:
    """Row 17: a holder is killed and leaves its lock, many come at once, and each one is alone inside."""
    path = path_with(tmp_path / "bin", WAYS[way])
    lock, inside = tmp_path / "lock", tmp_path / "inside"
    for _ in range(3):
        dead = start(path, f"lock {lock}\necho held\nread -r line")
        assert line_of(dead) == "held"
        dead.kill()
        dead.communicate()
        critical = f"mkdir {inside} && sleep 0.05 && rmdir {inside} && echo alone || echo two"
        several = [start(path, f"read -r line\nlock {lock}\n{critical}") for _ in range(AT_ONCE)]
        for process in several:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate()[0].splitlines() for process in several]
        assert [lines[-1] for lines in outputs] == ["alone"] * AT_ONCE


@pytest.mark.parametrize("way", WAYS)
def test_a_lock_is_held_and_released(tmp_path: Path, way: str) -> None:
    """Row 17: who waits says for whom; the lock ends with its holder; a link of the release before is no holder."""
    path = path_with(tmp_path / "bin", WAYS[way])
    lock = tmp_path / "launching"
    (tmp_path / "launch.lock").symlink_to(str(os.getpid()))
    first = start(path, f"lock {lock}\necho $$\nread -r line")
    number = line_of(first)
    second = start(path, f"lock {lock}\necho held")
    assert line_of(second) == f"waiting for another dls (process {number}) to finish"
    first.communicate("\n")
    assert second.communicate()[0] == "held\n"
    assert not list(tmp_path.glob("*.link*"))


@pytest.mark.parametrize("way", WAYS)
def test_what_a_script_leaves_running_does_not_hold_the_lock(tmp_path: Path, way: str) -> None:
    """Row 17: the server that a script starts outlives it, without the lock."""
    path = path_with(tmp_path / "bin", WAYS[way])
    script = f"lock {tmp_path / 'lock'}\nsleep 60 </dev/null >/dev/null 2>&1 9>&- &\necho $!"
    first = start(path, script)
    sleeper = int(line_of(first))
    first.communicate()
    try:
        assert start(path, f"lock {tmp_path / 'lock'}\necho held").communicate()[0] == "held\n"
        os.kill(sleeper, 0)
    finally:
        os.kill(sleeper, 9)


def test_the_launch_script_starts_nothing_with_the_lock() -> None:
    """Row 17: every process that the script does not wait for is started with the lock's descriptor closed."""
    from importlib import resources

    text = resources.files("dls.remote.host.scripts").joinpath("launch.sh").read_text()
    started = [line for line in text.splitlines() if line.endswith(" &")]
    assert len(started) == 2 and all("9>&- &" in line for line in started)


def test_a_link_of_a_number_that_is_ours_now_is_stale(tmp_path: Path) -> None:
    """Row 17: a process that has the number of a dead holder does not wait for itself."""
    path = path_with(tmp_path / "bin", ())
    lock = tmp_path / "lock"
    done = start(path, f"ln -s $$ {lock}.link\nlock {lock}\nreadlink {lock}.link.1\necho $$")
    found = done.communicate()[0].split()
    assert len(found) == 2 and found[0] == found[1]
    until(lambda: not (tmp_path / "lock.link.1").is_symlink())
