"""Send the program uv to a host that can't fetch it: one without Python, or with one whose pip is too old for that.

The wheel that fits the host comes from the package index that pip is configured with here, and its hash is checked
against the lock file.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from dls.errors import HostError
from dls.remote.host import lock_files
from dls.remote.host.probe import HostReport
from dls.remote.host.refusals import raise_refusal
from dls.remote.host.scripts import render
from dls.remote.progress import Phase
from dls.remote.ssh.shell import ScriptRunner

PIECE_BYTES = 1 << 20
"""Number of bytes that are sent at a time."""
DOWNLOAD_SECONDS = 300
"""Seconds that pip may take to download the wheel, some 20 MB."""
OLDEST_GLIBC, OLDEST_MUSL = 17, 1
"""Minor versions of the oldest C libraries for which wheels may be built: glibc 2.17 and musl 1.1."""
GLIBC = re.compile(r"glibc 2\.(\d{1,3})")
MACHINES = {"arm64": "aarch64", "amd64": "x86_64", "i386": "i686"}
"""Names of machines on Linux, where wheels have another one."""
BUILT_FOR = ("x86_64", "aarch64", "i686", "armv7l", "ppc64le", "s390x", "riscv64")
"""Machines with Linux for which there are wheels."""
MACOS = {"arm64": ("macosx_11_0_arm64",), "x86_64": ("macosx_10_15_x86_64",)}


def platform_tags(report: HostReport) -> tuple[str, ...]:
    """Return the tags of wheels that fit the host, the best first (PEP 600, PEP 656); none for a system without uv."""
    if report.system == "Darwin":
        return MACOS.get(report.machine, ())
    machine = MACHINES.get(report.machine, report.machine)
    if report.system != "Linux" or machine not in BUILT_FOR:
        return ()
    found = GLIBC.match(report.libc)
    newest = int(found[1]) if found else 0
    # The build for musl is linked statically, and runs beside every C library.
    glibc = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, OLDEST_GLIBC - 1, -1)]
    return (*glibc, *(f"musllinux_1_{minor}_{machine}" for minor in (2, OLDEST_MUSL)))


def send_uv(connection: ScriptRunner, root: str, run_dir: str, tags: tuple[str, ...], phase: Phase) -> str:
    """Download the wheel of uv that fits the tags here, send the program to the host and return its path there.

    It lies in the remote directory `root`. Raises HostError.
    """
    phase.update("fetching uv here")
    program = _download(connection.target.label, tags)
    path = f"{root}/uv/bin/uv"
    part = f"{path}.{secrets.token_hex(6)}"
    prepared = connection.run(render("prepare_uv", "trusted", ROOT=root), timeout=60)
    raise_refusal(connection.target.label, prepared, run_dir)
    packed = gzip.compress(program, 6)
    archive = ""
    try:
        connection.append(part, 0, _pieces(packed, phase))
    except HostError:  # the host takes no files, but every host takes scripts
        archive = base64.encodebytes(packed).decode().strip()
    phase.update("checking uv on the host")
    digest = hashlib.sha256(program).hexdigest()
    script = render("receive_uv", "trusted", ROOT=root, PART=part, ARCHIVE=archive, DIGEST=digest)
    received = connection.run(script, timeout=300)
    raise_refusal(connection.target.label, received, run_dir)
    if received.status:
        raise HostError(
            f"uv was sent to {connection.target.label}, but can't be used there (status {received.status}).",
            "Install Python from 3.10 to 3.14 there, or uv.",
            received.stderr or received.stdout,
        )
    return path


def _pieces(data: bytes, phase: Phase) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        phase.update(f"sending uv: {start / 1e6:.0f} of {len(data) / 1e6:.0f} MB")
        yield data[start : start + PIECE_BYTES]


def _download(where: str, tags: tuple[str, ...]) -> bytes:
    """Return the program from the locked wheel that fits the tags; raises HostError when it can't be had here."""
    reasons = []
    for pip in _pips():
        with tempfile.TemporaryDirectory(prefix="dls-uv-") as folder:
            reason = _run_pip(pip, Path(folder), tags)
            for wheel in Path(folder).glob("*.whl"):
                return _unpack(wheel)
        reasons.append(reason)
    raise HostError(
        f"{where} has no Python that can fetch uv, and this computer could not fetch it to send it there.",
        "Install Python from 3.10 to 3.14 on the host, or uv; or pip here: python -m ensurepip.",
        "\n".join(reasons) or "There is no pip here.",
    )


def _pips() -> list[list[str]]:
    """Return the commands here that may be a pip: our Python's (none where uv made it), uv's, and any other one."""
    found = [[sys.executable, "-m", "pip"]]
    if uv := shutil.which("uv"):
        found.append([uv, "tool", "run", "pip"])
    if pip := shutil.which("pip3") or shutil.which("pip"):
        found.append([pip])
    return found


def _run_pip(pip: list[str], folder: Path, tags: tuple[str, ...]) -> str:
    """Let pip download the wheel into the folder, and return the end of what it said."""
    locked = folder / "uv.txt"
    locked.write_text(lock_files.read("uv"), encoding="utf-8")
    platforms = [word for tag in tags for word in ("--platform", tag)]
    command = [
        *pip, "download", "--no-deps", "--only-binary", ":all:", *platforms, "--require-hashes",
        "--requirement", str(locked), "--dest", str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", env=environment, timeout=DOWNLOAD_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{pip[0]}: {error}"
    return done.stdout[-1000:]


def _unpack(wheel: Path) -> bytes:
    """Return the program in a wheel of uv."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/scripts/uv"))
        return archive.read(name)
