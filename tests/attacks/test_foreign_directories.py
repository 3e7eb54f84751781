"""Directories on the host that another user made or changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import DlsError, HostError
from dls.remote.host import install
from dls.remote.host.packages import Code, requirements
from dls.remote.host.probe import Depth, HostReport, probe
from dls.remote.host.scripts import render, verify
from dls.remote.ssh.connection import Connection
from tests.support.connecting import connected
from tests.support.itksnap import ItkSnap

STRANGER = 65534
"""Number of the user who is not ours."""
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away, so it needs root")


def give_away(path: Path) -> None:
    """Make a stranger the owner of everything there."""
    for found in (path, *path.rglob("*")):
        os.lchown(found, STRANGER, STRANGER)


def plant(root: Path, report: HostReport, marker: Path) -> None:
    """Put an environment and code there, under the names that the next connect looks for; they leave a marker."""
    plan = install.plan(report, requirements("region"), Code.installed().key)
    interpreter = Path(plan.interpreter)
    interpreter.parent.mkdir(parents=True)
    interpreter.write_text(f"#!/bin/sh\ntouch {marker}\nexit 1\n")
    (Path(plan.environment) / "complete.json").write_text("{}")
    (Path(plan.code) / "dls").mkdir(parents=True)
    for path in (root, *root.rglob("*")):
        path.chmod(0o777)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder in a place where every user can make one."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@needs_root
@pytest.mark.parametrize("owner", ["all", "environment", "nothing"])
def test_code_of_another_user_never_runs(host: sshd.Server, connection: Connection, shared: Path, owner: str) -> None:
    """Row 2: a remote directory with an environment and code of a stranger, or open to all, is refused, and not run."""
    root, marker = shared / "host", shared / "marker"
    root.mkdir()
    plant(root, probe(connection, str(root), Depth.ALL), marker)
    if owner == "all":
        give_away(root)
    elif owner == "environment":
        root.chmod(0o755)
        give_away(root / "env")
    with pytest.raises(DlsError) as caught:
        connected(host, str(root))
    assert not marker.exists()
    assert isinstance(caught.value, HostError)
    assert str(root) in caught.value.message and "--remote-dir" in caught.value.hint
    assert ("chmod go-w" in caught.value.hint) == (owner == "nothing")


@needs_root
def test_a_link_of_another_user_is_not_followed(host: sshd.Server, shared: Path) -> None:
    """Row 2: not even to a directory that is the user's own."""
    own, link = shared / "own", shared / "host"
    own.mkdir()
    link.symlink_to(own)
    os.lchown(link, STRANGER, STRANGER)
    for name in (str(link), f"{link}/"):
        with pytest.raises(HostError, match="somebody else"):
            connected(host, name)
    assert list(own.iterdir()) == []


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_a_directory_of_ours(shell: str, short_folder: Path) -> None:
    """Row 2: open to others is loose, the user's own link counts as its target, an empty directory is closed."""

    def fault(path: Path) -> str:
        script = render("trusted") + f"find_fault {path}"
        return subprocess.run([*words, "-c", script], capture_output=True, text=True, check=True).stdout

    words = [shell, "sh"] if shell == "busybox" else [shell]
    folder, link, file = (short_folder / name for name in ("folder", "link", "file"))
    folder.mkdir()
    file.write_text("")
    link.symlink_to(folder)
    (short_folder / "loop").symlink_to(short_folder / "loop")
    assert [fault(path) for path in (folder, link, short_folder / "missing")] == ["", "", ""]
    assert [fault(path) for path in (file, short_folder / "loop")] == ["foreign", "foreign"]
    for mode, expected in ((0o775, "loose"), (0o757, "loose"), (0o1777, "loose"), (0o2755, ""), (0o500, "")):
        folder.chmod(mode)
        assert fault(folder) == fault(link) == expected
    folder.chmod(0o777)
    script = render("trusted") + f"set -eu; check_directories {folder}"
    subprocess.run([*words, "-c", script], check=True)
    assert folder.stat().st_mode & 0o022 == 0


@needs_root
@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_a_file_of_ours(shell: str, short_folder: Path) -> None:
    """Row 2: a stranger's file or link ends the script with status 77 and its name."""
    words = [shell, "sh"] if shell == "busybox" else [shell]
    file, link = short_folder / "it's", short_folder / "link"
    file.write_text("")
    link.symlink_to("/bin/sh")

    def check(path: Path) -> tuple[int, str]:
        script = render("trusted", VALUE=str(path)) + 'set -eu; check_files "$VALUE" "$VALUE.missing"'
        done = subprocess.run([*words, "-c", script], capture_output=True, text=True)
        return done.returncode, done.stdout

    assert check(file) == check(link) == (0, "")
    file.chmod(0o666)
    assert check(file) == (77, f"loose\t{file}\n")
    for path in (file, link):
        os.lchown(path, STRANGER, STRANGER)
        assert check(path) == (77, f"foreign\t{path}\n")


@pytest.fixture
def code(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Our code as it is on a host, and its key."""
    folder = tmp_path / "code"
    with zipfile.ZipFile(BytesIO(Code.installed().archive())) as archive:
        archive.extractall(folder)
    yield folder, Code.installed().key


def test_the_host_computes_the_key_of_the_laptop(code: tuple[Path, str]) -> None:
    """Row 2: of the same files, whatever Python has cached beside them; and another one of any change."""
    folder, key = code
    cache = folder / "dls" / "__pycache__"
    cache.mkdir()
    (cache / "errors.cpython-311.pyc.140").write_bytes(b"half")
    assert verify.digest_code(folder) == key
    changes = (
        ("dls/errors.py", b"changed"),
        ("dls/new.py", b""),
        ("dls/errors.so", b"\x7fELF"),
        ("sitecustomize.py", b""),
    )
    for name, content in changes:
        path = folder / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        assert verify.digest_code(folder) != key, name
        path.unlink() if before is None else path.write_bytes(before)
    (folder / "dls" / "errors.py").rename(folder / "dls" / "errors2.py")
    assert verify.digest_code(folder) != key


@needs_root
def test_a_cache_of_another_user_is_a_change(code: tuple[Path, str]) -> None:
    """Row 2: Python would run it instead of the file beside it; so would it a link or a file that others can write."""
    folder, _ = code
    cache = folder / "dls" / "__pycache__"
    cache.mkdir()
    planted = cache / "errors.cpython-311.pyc"
    planted.write_bytes(b"")
    os.chown(planted, STRANGER, STRANGER)
    with pytest.raises(verify.Changed, match="somebody else"):
        verify.digest_code(folder)
    os.chown(planted, 0, 0)
    planted.chmod(0o666)
    with pytest.raises(verify.Changed, match="others can write"):
        verify.digest_code(folder)
    planted.unlink()
    planted.symlink_to("/etc/hostname")
    with pytest.raises(verify.Changed, match="no file"):
        verify.digest_code(folder)


def test_code_that_was_changed_is_sent_again(host: sshd.Server, clean: str, short_folder: Path) -> None:
    """Row 2: code that is not what its name says never runs."""
    marker = short_folder / "marker"
    path = Path(f"{clean}/code/{Code.installed().key}/dls/__init__.py")
    original = path.read_text()
    path.write_text(f"{original}\nopen({str(marker)!r}, 'w').close()\n")
    session, reporter = connected(host, clean)
    with session:
        assert not marker.exists() and path.read_text() == original
        assert any("damaged" in note for note in reporter.notes) and "install" in reporter.phases
        assert ItkSnap(session.port).start()
    assert [entry.name for entry in path.parents[2].iterdir() if "making" in entry.name] == []


@pytest.mark.slow
def test_an_environment_that_was_changed_is_made_again(host: sshd.Server, clean: str, short_folder: Path) -> None:
    """Row 2: what somebody put into it never runs; one of the release before, without a record, stays."""
    marker = short_folder / "marker"
    [site] = Path(clean).glob("env/*/lib/python*/site-packages")
    complete = site.parents[2] / "complete.json"
    (site / "planted.pth").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()\n")
    session, reporter = connected(host, clean)
    session.close(stop_server=True)
    assert not marker.exists() and not (site / "planted.pth").exists()
    assert "install" in reporter.phases
    fields = json.loads(complete.read_text())
    assert fields.pop("record") and "lock" in fields
    complete.write_text(json.dumps({"format": fields["format"], "packages": fields["packages"]}))
    session, reporter = connected(host, clean)
    session.close(stop_server=True)
    assert "install" not in reporter.phases
