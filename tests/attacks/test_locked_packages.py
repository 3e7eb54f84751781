"""Packages on the host: exact versions with hashes where they fit it, ranges where they do not."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from dls.errors import InstallError
from dls.gpus import Gpu
from dls.remote.host import install, lock_files
from dls.remote.host.install import Tool, plan
from dls.remote.host.packages import ENGINES, Code, Requirements, requirements
from dls.remote.host.probe import Depth, HostReport, Python, probe
from dls.remote.progress import Phase, Silent
from dls.remote.ssh.connection import Connection

SIX = """six==1.17.0 \\
    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274 \\
    --hash=sha256:ff70335d468e7eb6ec65b95b99d3a2836546063f63acc5171de367e834932a81
"""
TINY = Requirements(("six",), disk_mib=10)
REPORT = HostReport(
    system="Linux", machine="x86_64", libc="glibc 2.36", hostname="gpu1", home="/home/ann", uid=1000,
    root="/home/ann/.dls", run_dir="/tmp/dls-1000/x", remote_key="x", filesystem="xfs", free_mib=50_000,
    pythons=(Python("/usr/bin/python3", (3, 11, 2), True, True),),
)  # fmt: skip


class Lines(Silent):
    """Records what was shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, text: str) -> None:
        self.lines.append(text)


def gpu(driver: str) -> tuple[Gpu, ...]:
    return (Gpu(0, "A100", 1, 1, driver),)


@pytest.mark.parametrize(
    ("report", "engine", "fits"),
    [
        (REPORT, "region", True),
        (replace(REPORT, machine="aarch64"), "region", True),
        (replace(REPORT, system="Darwin", machine="arm64"), "region", True),
        (replace(REPORT, system="Darwin", machine="arm64"), "nninteractive", True),
        (replace(REPORT, system="Darwin"), "region", False),
        (replace(REPORT, machine="ppc64le"), "region", False),
        (replace(REPORT, pythons=(), uv="/usr/bin/uv"), "region", True),
        (REPORT, "nninteractive", False),
        (replace(REPORT, gpus=gpu("580.65.06")), "nninteractive", True),
        (replace(REPORT, gpus=gpu("610.1")), "nninteractive", True),
        (replace(REPORT, gpus=gpu("575.51")), "nninteractive", False),
        (replace(REPORT, gpus=(*gpu("580.1"), *gpu("535.1"))), "nninteractive", False),
        (replace(REPORT, gpus=gpu("[N/A]")), "nninteractive", False),
    ],
)
def test_the_hosts_that_a_lock_fits(report: HostReport, engine: str, fits: bool) -> None:
    """Row 19: it depends on system, machine and driver; the environment's name does not depend on the lock."""
    found = plan(report, requirements(engine), "c")
    assert found.lock == (lock_files.read(engine) if fits else "")
    unlocked = replace(requirements(engine), lock="")
    assert plan(report, unlocked, "c").environment == found.environment and plan(report, unlocked, "c").lock == ""


@pytest.mark.parametrize("name", [*ENGINES, "uv"])
def test_every_package_of_a_lock_has_a_hash(name: str) -> None:
    """Row 19: the files are in the package, and name exact versions; the engine's own packages are among them."""
    text = resources.files("dls.remote.host").joinpath("locks", f"{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[a-z0-9.-]+==\S+", entry) and "--hash=sha256:" in entry for entry in entries)
    locked = {entry.partition("==")[0] for entry in entries}
    needed = ENGINES[name].packages if name in ENGINES else ("uv",)
    assert {re.split("[<>=!]", package)[0] for package in needed} <= locked


def test_the_lock_travels_only_when_an_environment_is_made() -> None:
    """Row 19: it is in the installer's script, in a here-document, and in no other."""
    found = plan(REPORT, requirements("region"), "c")
    assert shlex.quote(lock_files.read("region")) in install.environment_script(found, own_caches=False)
    assert "--hash" not in install.code_script(found, b"")


def install_locked(
    connection: Connection, root: Path, lock: str, tool: Tool | None, needed: Requirements = TINY
) -> tuple[str, list[str], Path]:
    """Install from a lock; returns the result, the lines that were shown, and the environment's directory."""
    found = plan(probe(connection, str(root), Depth.ALL), needed, Code.installed().key, tool=tool)
    found = replace(found, lock=lock)
    lines = Lines()
    result = install.install(connection, found, Code.installed(), Phase(lines), own_caches=True)
    return result, lines.lines, Path(found.environment)


TOOLS = pytest.mark.parametrize("tool", [Tool.PIP, None])


@TOOLS
def test_a_wrong_hash_is_refused(connection: Connection, short_folder: Path, tool: Tool | None) -> None:
    """Row 19: with its own sentence and exit code 15; no ranges are tried, and nothing is left."""
    wrong = re.sub("sha256:....", "sha256:0000", SIX)
    with pytest.raises(InstallError, match="hash differs") as caught:
        install_locked(connection, short_folder, wrong, tool)
    assert caught.value.exit_code == 15 and caught.value.hint and "six" in caught.value.detail
    assert list((short_folder / "env").iterdir()) == []


@pytest.mark.slow
@TOOLS
def test_a_package_that_is_not_there_is_no_wrong_hash(
    connection: Connection, short_folder: Path, tool: Tool | None
) -> None:
    """Row 19: the newest ones that fit are taken, and both the lines and the result say so."""
    result, lines, environment = install_locked(connection, short_folder, SIX.replace("1.17.0", "0.0.0.1"), tool)
    assert result == install.RESULTS["ranges"]
    assert any("can't be installed here" in line for line in lines)
    assert json.loads((environment / "complete.json").read_text())["lock"] is None


@pytest.mark.slow
@TOOLS
def test_the_locked_version_is_installed(connection: Connection, short_folder: Path, tool: Tool | None) -> None:
    """Row 19: with pip and with uv; complete.json names the lock."""
    result, _, environment = install_locked(connection, short_folder, SIX, tool)
    assert result == "Installed the locked packages and our code"
    fields = json.loads((environment / "complete.json").read_text())
    assert fields["lock"] == lock_files.digest(SIX) and fields["record"] and fields["packages"] == ["six"]
    code = "import six; print(six.__version__)"
    assert subprocess.check_output([environment / "bin" / "python", "-c", code], text=True) == "1.17.0\n"


def test_a_host_that_no_lock_fits(connection: Connection, short_folder: Path) -> None:
    """Row 19: the result says so."""
    result, _, _ = install_locked(connection, short_folder, "", None)
    assert result == "Installed the packages (the newest that fit: no lock fits this host) and our code"


@pytest.mark.slow
@TOOLS
def test_the_region_engine_is_installed_from_its_lock(
    connection: Connection, short_folder: Path, tool: Tool | None
) -> None:
    """Row 19: what is installed is what the lock says."""
    lock, needed = lock_files.read("region"), requirements("region")
    result, lines, environment = install_locked(connection, short_folder, lock, tool, needed)
    assert result == "Installed the locked packages and our code", lines[-20:]
    code = "import importlib.metadata as m; [print(d.name.lower(), d.version) for d in m.distributions()]"
    output = subprocess.check_output([environment / "bin" / "python", "-I", "-c", code], text=True)
    installed = dict(line.split() for line in output.splitlines())
    for name in ("starlette", "numpy", "uvicorn"):
        assert re.search(rf"(?m)^{name}=={re.escape(installed[name])} ", lock), name
