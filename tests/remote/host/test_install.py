"""The plan, and doing it on a real host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dls.errors import HostError, InstallError
from dls.remote.host import install
from dls.remote.host.install import Tool, plan
from dls.remote.host.packages import Code, Requirements
from dls.remote.host.probe import Depth, HostReport, Python, probe
from dls.remote.progress import Phase, Silent
from dls.remote.ssh.connection import Connection

WANTED = Requirements(("numpy",), disk_mib=100)
REPORT = HostReport(
    system="Linux", machine="x86_64", libc="glibc 2.36", hostname="gpu1", home="/home/ann", uid=1000,
    root="/home/ann/.dls", run_dir="/tmp/dls-1000/x", remote_key="x", filesystem="xfs", free_mib=5000,
)  # fmt: skip


def python(version: tuple[int, int, int], venv: bool = True, pip: bool = True) -> Python:
    return Python(f"/usr/bin/python{version[0]}.{version[1]}", version, venv, pip)


def test_a_bare_host_gets_everything() -> None:
    """An environment named by what was asked for and by the kind of host, and our code by its content."""
    found = plan(replace(REPORT, pythons=(python((3, 11, 2)),)), WANTED, "c0de")
    assert found.make_environment and found.send_code and found.tool is Tool.FETCH_UV
    assert found.environment == f"/home/ann/.dls/env/{WANTED.key}-linux-x86_64"
    assert found.interpreter.endswith("/bin/python") and found.code == "/home/ann/.dls/code/c0de"


def test_what_is_there_is_not_made_again() -> None:
    """New code never waits for packages; equal wishes in another order share an environment."""
    there = replace(REPORT, environments=frozenset({f"{WANTED.key}-linux-x86_64"}), full=False)
    assert not plan(there, WANTED, "new").make_environment and plan(there, WANTED, "new").send_code
    assert plan(replace(there, codes=frozenset({"new"})), WANTED, "new").nothing_to_do
    assert Requirements(("a", "b"), 1).key == Requirements(("b", "a"), 2).key != Requirements(("a",), 1).key


@pytest.mark.parametrize(
    ("pythons", "uv", "tool", "chosen"),
    [
        ([python((3, 14, 0)), python((3, 12, 1)), python((3, 10, 0))], "", Tool.FETCH_UV, (3, 12)),
        ([python((3, 11, 0))], "/usr/bin/uv", Tool.UV, (3, 11)),
        ([python((3, 11, 0), venv=False)], "/usr/bin/uv", Tool.UV, (3, 11)),
        ([], "/usr/bin/uv", Tool.UV, None),
        ([python((3, 6, 8))], "/usr/bin/uv", Tool.UV, None),
        ([python((3, 11, 0), venv=False)], "", Tool.FETCH_UV, (3, 11)),
        ([python((3, 8, 0))], "", Tool.FETCH_UV, (3, 8)),
        ([python((3, 9, 0)), python((3, 10, 0))], "", Tool.FETCH_UV, (3, 10)),
    ],
)
def test_the_tool_fits_the_host(pythons: list[Python], uv: str, tool: Tool, chosen: tuple[int, int] | None) -> None:
    """uv where it is or can be fetched; a Python too old for the server can still fetch it."""
    found = plan(replace(REPORT, pythons=tuple(pythons), uv=uv), WANTED, "c")
    assert found.tool is tool
    assert (found.python.version[:2] if found.python else None) == chosen


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (REPORT, "no Python"),
        (replace(REPORT, pythons=(python((3, 8, 0), False, False),)), "3.8.0"),
        (replace(REPORT, pythons=(python((3, 11, 0)),), free_mib=50), "50 MiB free"),
        (replace(REPORT, pythons=(python((3, 11, 0)),), system="MINGW64_NT-10.0"), "MINGW64"),
    ],
)
def test_hosts_that_can_not_be_set_up(report: HostReport, said: str) -> None:
    """Each with the figure that is in the way and what to do."""
    with pytest.raises(HostError, match=said) as caught:
        plan(report, WANTED, "c")
    assert caught.value.hint


def test_our_code_is_whole_and_keyed_by_content() -> None:
    """Every module and nothing else; equal content gives equal archives."""
    code = Code.installed()
    names = [name for name, _ in code.files]
    assert "dls/__init__.py" in names and "dls/server/engines/region/engine.py" in names
    assert all(name.startswith("dls/") and name.endswith(".py") for name in names)
    assert code.key == Code.installed().key and code.archive() == Code.installed().archive()
    changed = Code((*code.files[:-1], (code.files[-1][0], b"other")))
    assert changed.key != code.key
    assert len(code.archive()) < 300_000


TINY = Requirements(("six",), disk_mib=10)


class Lines(Silent):
    """Remembers what was shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, text: str) -> None:
        self.lines.append(text)


def made(
    connection: Connection, root: Path, wanted: Requirements = TINY, tool: Tool | None = None
) -> tuple[install.InstallPlan, Lines]:
    report = probe(connection, str(root), Depth.ALL)
    found = plan(report, wanted, Code.installed().key, tool=tool)
    lines = Lines()
    install.install(connection, found, Code.installed(), Phase(lines), own_caches=True)
    return found, lines


@pytest.mark.parametrize("tool", [Tool.PIP, None])
def test_an_environment_is_made_on_a_real_host(connection: Connection, short_folder: Path, tool: Tool | None) -> None:
    """With pip, and with uv fetched first: packages and code are in, the log is shown live, nothing is left over."""
    found, lines = made(connection, short_folder, tool=tool)
    assert found.tool is (tool or Tool.FETCH_UV) or found.tool is Tool.UV
    program = [found.interpreter, "-c", "import six, dls; print(dls.__file__)"]
    paths = {"PYTHONPATH": found.code}
    said = subprocess.run(program, capture_output=True, text=True, env=paths, cwd="/", check=True)
    assert said.stdout.strip() == f"{found.code}/dls/__init__.py"
    assert any("six" in line for line in lines.lines), lines.lines
    assert {path.name for path in (short_folder / "env").iterdir()} == {Path(found.environment).name}
    assert {path.name for path in (short_folder / "code").iterdir()} == {Path(found.code).name}
    assert (short_folder / "env").stat().st_mode & 0o077 == 0
    again = plan(probe(connection, str(short_folder)), TINY, Code.installed().key)
    assert again.nothing_to_do


def test_an_environment_that_is_damaged_is_made_again(connection: Connection, short_folder: Path) -> None:
    """Without its interpreter or its mark, what stands there is no environment."""
    found, _ = made(connection, short_folder)
    (Path(found.environment) / "complete.json").unlink()
    assert plan(probe(connection, str(short_folder), Depth.ALL), TINY, "x").make_environment
    found, _ = made(connection, short_folder)
    Path(found.interpreter).unlink()
    assert plan(probe(connection, str(short_folder), Depth.ALL), TINY, "x").make_environment
    made(connection, short_folder)
    assert json.loads((Path(found.environment) / "complete.json").read_text())["packages"] == ["six"]


def test_packages_that_do_not_exist(connection: Connection, short_folder: Path) -> None:
    """The installer's last lines come with the error, and nothing half-made stays."""
    with pytest.raises(InstallError) as caught:
        made(connection, short_folder, Requirements(("six==0.0.0.1",), 10))
    assert "six" in caught.value.detail
    assert list((short_folder / "env").iterdir()) == []


def test_an_installer_that_was_killed_leaves_nothing_that_is_taken_for_complete(
    connection: Connection, short_folder: Path
) -> None:
    """What it left is swept by the next one, its lock too."""
    left = short_folder / "env" / f".making-{os.uname().nodename}-999999"
    (left / "env" / "bin").mkdir(parents=True)
    run = short_folder / "run"
    run.mkdir(mode=0o700)
    (run / "install.lock").symlink_to("999999")
    found, _ = made(connection, short_folder)
    assert not left.exists() and Path(found.interpreter).exists() and not (run / "install.lock").is_symlink()


def test_a_second_installer_waits_for_the_first(connection: Connection, short_folder: Path) -> None:
    """And finds its work done."""
    run = short_folder / "run"
    run.mkdir(mode=0o700)
    holder = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (run / "install.lock").symlink_to(str(holder.pid))
    found
    def first_is_done() -> None:
        time.sleep(10)  # by then the second one has come as far as the lock, also where it is slow
        holder.kill()
        holder.wait()

    thread = threading.Thread(target=first_is_done)
    thread.start()
    found, lines = made(connection, short_folder)
    thread.join()
    assert any(f"waiting for another dls (process {holder.pid})" in line for line in lines.lines)
    assert Path(found.interpreter).exists() and seen == []


def test_a_run_directory_of_somebody_else(connection: Connection, short_folder: Path) -> None:
    """Is not used."""
    if os.geteuid() != 0:
        pytest.skip("gives a directory away, so it needs root")
    run = short_folder / "run"
    run.mkdir()
    os.chown(run, 65534, 65534)
    with pytest.raises(HostError, match="somebody else"):
        made(connection, short_folder)
