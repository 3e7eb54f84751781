"""The plan of an installation, and an installation on a real host."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dls.errors import HostError, InstallError
from dls.gpus import Gpu
from dls.remote.host import install
from dls.remote.host.install import Tool, plan
from dls.remote.host.packages import Code, Requirements, requirements
from dls.remote.host.probe import Depth, HostReport, Python, probe
from dls.remote.host.provision import OWN_INTERNET, Provision
from dls.remote.host.scripts import render
from dls.remote.progress import Phase, Silent
from dls.remote.ssh.connection import Connection

NEEDED = Requirements(("numpy",), disk_mib=100)
REPORT = HostReport(
    system="Linux", machine="x86_64", libc="glibc 2.36", hostname="gpu1", home="/home/ann", uid=1000,
    root="/home/ann/.dls", run_dir="/tmp/dls-1000/x", remote_key="x", filesystem="xfs", free_mib=5000,
)  # fmt: skip


def python(version: tuple[int, int, int], venv: bool = True, pip: bool = True) -> Python:
    return Python(f"/usr/bin/python{version[0]}.{version[1]}", version, venv, pip)


def test_a_bare_host_gets_everything() -> None:
    """The environment is named by its packages and by the kind of host, and our code by its content."""
    found = plan(replace(REPORT, pythons=(python((3, 11, 2)),)), NEEDED, "c0de")
    assert found.make_environment and found.send_code and found.tool is Tool.FETCH_UV
    assert found.environment == f"/home/ann/.dls/env/{NEEDED.key}-linux-x86_64"
    assert found.interpreter.endswith("/bin/python") and found.code == "/home/ann/.dls/code/c0de"


def test_existing_parts_are_not_installed_again() -> None:
    """New code needs no new packages; the same packages in another order share an environment."""
    there = replace(REPORT, environments=frozenset({f"{NEEDED.key}-linux-x86_64"}), full=False)
    assert not plan(there, NEEDED, "new").make_environment and plan(there, NEEDED, "new").send_code
    assert plan(replace(there, codes=frozenset({"new"})), NEEDED, "new").nothing_to_do
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
        ([python((3, 6, 8)), python((3, 7, 0))], "", Tool.SEND_UV, None),
        ([python((3, 11, 0), venv=False, pip=False)], "", Tool.SEND_UV, None),
        ([], "", Tool.SEND_UV, None),
    ],
)
def test_the_tool_fits_the_host(pythons: list[Python], uv: str, tool: Tool, chosen: tuple[int, int] | None) -> None:
    """uv is used where it exists or can be fetched, or is sent; a Python too old for the server can still fetch it."""
    found = plan(replace(REPORT, pythons=tuple(pythons), uv=uv), NEEDED, "c")
    assert found.tool is tool
    assert (found.python.version[:2] if found.python else None) == chosen


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (replace(REPORT, machine="mips64"), "no Python"),
        (replace(REPORT, machine="mips64", pythons=(python((3, 8, 0), False, False),)), "3.8.0"),
        (replace(REPORT, pythons=(python((3, 11, 0)),), free_mib=50), "50 MiB free"),
        (replace(REPORT, pythons=(python((3, 11, 0)),), system="MINGW64_NT-10.0"), "MINGW64"),
    ],
)
def test_hosts_that_can_not_be_set_up(report: HostReport, message: str) -> None:
    """Each error names the value that is the reason, and has a hint."""
    with pytest.raises(HostError, match=message) as caught:
        plan(report, NEEDED, "c")
    assert caught.value.hint


def test_our_code_is_complete_and_keyed_by_content() -> None:
    """The archive has every module that a server needs, and nothing else; equal content gives equal archives."""
    code = Code.installed()
    names = [name for name, _ in code.files]
    assert "dls/__init__.py" in names and "dls/server/engines/region/engine.py" in names
    assert all(name.startswith("dls/") and name.endswith(".py") for name in names)
    assert not [name for name in names if name.startswith(("dls/demo/", "dls/remote/"))]
    assert code.key == Code.installed().key and code.archive() == Code.installed().archive()
    changed = Code((*code.files[:-1], (code.files[-1][0], b"other")))
    assert changed.key != code.key
    assert len(code.archive()) < 250_000


def test_torch_with_cuda_needs_more_room() -> None:
    """A host with a GPU needs room for CUDA's libraries too: 5,000 MiB are enough without a GPU only."""
    needed = requirements("nninteractive")
    roomy = replace(REPORT, pythons=(python((3, 11, 0)),))
    assert plan(roomy, needed, "c").make_environment
    with pytest.raises(HostError, match="5000 MiB free; the packages need 7000"):
        plan(replace(roomy, gpus=(Gpu(0, "A100", 40000, 40960, "580.1"),)), needed, "c")


TINY = Requirements(("six",), disk_mib=10)


class Lines(Silent):
    """Records what was shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, text: str) -> None:
        self.lines.append(text)


def install_in(
    connection: Connection, root: Path, needed: Requirements = TINY, tool: Tool | None = None
) -> tuple[install.InstallPlan, Lines]:
    report = probe(connection, str(root), Depth.ALL)
    found = plan(report, needed, Code.installed().key, tool=tool)
    lines = Lines()
    install.install(connection, found, Code.installed(), Phase(lines), own_caches=True)
    return found, lines


@pytest.mark.parametrize("tool", [Tool.PIP, None])
def test_an_environment_is_made_on_a_real_host(connection: Connection, short_folder: Path, tool: Tool | None) -> None:
    """With pip, and with uv fetched first: packages and code import, lines are shown, nothing temporary is left."""
    found, lines = install_in(connection, short_folder, tool=tool)
    assert found.tool is (tool or Tool.FETCH_UV) or found.tool is Tool.UV
    program = [found.interpreter, "-c", "import six, dls; print(dls.__file__)"]
    paths = {"PYTHONPATH": found.code}
    done = subprocess.run(program, capture_output=True, text=True, env=paths, cwd="/", check=True)
    assert done.stdout.strip() == f"{found.code}/dls/__init__.py"
    assert any("six" in line for line in lines.lines), lines.lines
    assert {path.name for path in (short_folder / "env").iterdir()} == {Path(found.environment).name}
    assert {path.name for path in (short_folder / "code").iterdir()} == {Path(found.code).name}
    assert (short_folder / "env").stat().st_mode & 0o077 == 0
    second = plan(probe(connection, str(short_folder)), TINY, Code.installed().key)
    assert second.nothing_to_do


def test_an_environment_that_is_damaged_is_made_again(connection: Connection, short_folder: Path) -> None:
    """Without its interpreter or its `complete.json`, a directory is no environment."""
    found, _ = install_in(connection, short_folder)
    (Path(found.environment) / "complete.json").unlink()
    assert plan(probe(connection, str(short_folder), Depth.ALL), TINY, "x").make_environment
    found, _ = install_in(connection, short_folder)
    Path(found.interpreter).unlink()
    assert plan(probe(connection, str(short_folder), Depth.ALL), TINY, "x").make_environment
    install_in(connection, short_folder)
    assert json.loads((Path(found.environment) / "complete.json").read_text())["packages"] == ["six"]


def test_packages_that_do_not_exist(connection: Connection, short_folder: Path) -> None:
    """The error has the installer's last lines, and no incomplete environment stays."""
    with pytest.raises(InstallError) as caught:
        install_in(connection, short_folder, Requirements(("six==0.0.0.1",), 10))
    assert "six" in caught.value.detail
    assert list((short_folder / "env").iterdir()) == []


@pytest.mark.parametrize(
    ("said", "provision", "expected"),
    [
        ("No space left on device (os error 28)", OWN_INTERNET, "disk is full"),
        ("No solution found", OWN_INTERNET, "--lend-network"),
        ("No solution found", Provision(), "room on its disk?"),
    ],
)
def test_why_it_may_have_failed(
    connection: Connection, short_folder: Path, said: str, provision: Provision, expected: str
) -> None:
    """A full disk is named, and a host that is lent a network, or was sent a parcel, is not told to be lent one."""
    uv = short_folder / "failing-uv"
    uv.write_text(f"#!/bin/sh\necho 'error: {said}'\nexit 2\n")
    uv.chmod(0o755)
    report = replace(probe(connection, str(short_folder), Depth.ALL), uv=str(uv), pythons=())
    found, code = plan(report, TINY, "c0de"), Code.installed()
    with pytest.raises(InstallError) as caught:
        install.install(connection, found, code, Phase(Lines()), own_caches=True, provision=provision)
    told = f"{caught.value.message} {caught.value.hint}"
    assert expected in told and said in caught.value.detail
    assert ("--lend-network" in told) == (expected == "--lend-network")


def test_a_full_disk_ends_the_installation_at_once(connection: Connection, short_folder: Path) -> None:
    """Neither pip nor newer packages are tried after it: they would come over the link again, and fail as well."""
    uv, calls = short_folder / "full-uv", short_folder / "calls"
    uv.write_text(f'#!/bin/sh\necho "$1 $2" >>{calls}\n[ "$1" = venv ] || {{ cat /dev/zero >/dev/full; exit 2; }}\n')
    uv.chmod(0o755)
    report = replace(probe(connection, str(short_folder), Depth.ALL), uv=str(uv))
    found, lines = replace(plan(report, TINY, "c0de"), lock="six==1.17.0\n"), Lines()
    assert found.base and found.base.has_venv
    with pytest.raises(InstallError, match="its disk is full"):
        install.install(connection, found, Code.installed(), Phase(lines), own_caches=True)
    assert [call.split()[0] for call in calls.read_text().splitlines()] == ["venv", "pip"], lines.lines
    assert list((short_folder / "env").iterdir()) == []


def test_a_killed_installer_leaves_nothing_that_counts_as_complete(connection: Connection, short_folder: Path) -> None:
    """The next installer removes what it left; its lock has ended, and that of the release before is passed over."""
    left = short_folder / "env" / f".making-{os.uname().nodename}-999999"
    (left / "env" / "bin").mkdir(parents=True, mode=0o700)
    run = short_folder / "run"
    run.mkdir(mode=0o700)
    (run / "install.lock").symlink_to("999999")
    found, _ = install_in(connection, short_folder)
    assert not left.exists() and Path(found.interpreter).exists()


class FirstInstaller(Lines):
    """Holds the lock as another installer, and finishes its work when the second one says that it waits."""

    def __init__(self, lock: Path, environment: Path) -> None:
        super().__init__()
        self._environment = environment
        script = render("lock") + f"lock {shlex.quote(str(lock))}\necho $$\ncat"
        self._process = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.pid = int(self._process.stdout.readline())

    def update(self, text: str) -> None:
        super().update(text)
        if text.startswith("waiting for another dls"):
            (self._environment / "bin").mkdir(parents=True, mode=0o700)
            (self._environment / "bin" / "python").symlink_to(sys.executable)
            (self._environment / "complete.json").write_text("{}")
            self._process.communicate()


def test_a_second_installer_waits_for_the_first(connection: Connection, short_folder: Path) -> None:
    """The second one says for whom it waits, and then finds the environment and makes none."""
    lock = short_folder / "run" / "installing"
    lock.parent.mkdir(mode=0o700)
    second = plan(probe(connection, str(short_folder), Depth.ALL), TINY, Code.installed().key)
    first = FirstInstaller(lock, Path(second.environment))
    install.install(connection, second, Code.installed(), Phase(first), own_caches=True)
    assert f"waiting for another dls (process {first.pid}) to finish" in first.lines
    assert first.lines[-3:] == ["made by another dls meanwhile", "there", "sending our code"]
    assert (Path(second.environment) / "complete.json").read_text() == "{}"
    assert Path(second.interpreter).exists()


def test_a_run_directory_of_somebody_else(connection: Connection, short_folder: Path) -> None:
    """It is refused with an error."""
    if os.geteuid() != 0:
        pytest.skip("gives a directory away, so it needs root")
    run = short_folder / "run"
    run.mkdir()
    os.chown(run, 65534, 65534)
    with pytest.raises(HostError, match="somebody else"):
        install_in(connection, short_folder)
