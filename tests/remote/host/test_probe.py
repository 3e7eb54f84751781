"""The probe: its script on a real host, and the reading of its output."""

from __future__ import annotations

import json
import os
import platform
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from dls import gpus
from dls.contract import ServerState
from dls.errors import HostError
from dls.remote.host import probe as probing
from dls.remote.host.probe import Depth, parse, probe, run_dir
from dls.remote.host.scripts import render
from dls.remote.ssh.connection import Connection

BASE = (
    "system\tLinux\nmachine\tx86_64\nhostname\tgpu1\nhome\t/home/ann\nuid\t1000\nroot\t/home/ann/.dls\nfree\t2097152\n"
)
STATE = {
    "format": 1, "pid": 7, "secret": "s", "code": "c", "request": "r", "socket": "/s", "port": None,
    "engine": "region", "device": "cpu", "log": "/l",
}  # fmt: skip


def test_the_output_is_read() -> None:
    """Names and values are separated by tabs; lines without a tab are ignored."""
    text = BASE + (
        "libc\tglibc 2.36\nfilesystem\text2/ext3\nnoise\nfull\t1\n"
        "environment\tabc-linux-x86_64\ncode\tdef\nuv\t/usr/bin/uv\n"
        "python\t/usr/bin/python3\t/usr/bin/python3.11\t3.11.2\t1\t0\n"
        "python\t/bin/python3\t/usr/bin/python3.11\t3.11.2\t1\t0\n"
        "python\t/opt/py\t/opt/py\t3.8.1\t0\t1\npython\tbroken\n"
        "gpu\t0, NVIDIA A100, 40960, 1000, 550.54, 8.0\ngpu\t1, NVIDIA A100, 40960, 39000, 550.54, 8.0\n"
        f"state\t/run\t{json.dumps(STATE)}\n"
    )
    report = parse(text, "~/.dls")
    assert report.free_mib == 2048 and report.platform == "linux-x86_64" and report.full
    assert [(python.path, python.version, python.has_venv, python.has_pip) for python in report.pythons] == [
        ("/usr/bin/python3", (3, 11, 2), True, False),
        ("/opt/py", (3, 8, 1), False, True),
    ]
    assert report.environments == {"abc-linux-x86_64"} and report.codes == {"def"} and report.uv == "/usr/bin/uv"
    assert gpus.most_free(report.gpus) == gpus.Gpu(1, "NVIDIA A100", 40960, 39000, "550.54", "8.0")
    [server] = report.servers
    assert server.run_dir == "/run" and "secret" not in repr(server)


def test_an_output_without_a_required_fact() -> None:
    """The error names the missing fact."""
    with pytest.raises(HostError, match="uid"):
        parse(BASE.replace("uid", "gid"), "~/.dls")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", json.dumps({**STATE, "format": 2}), json.dumps({**STATE, "pid": "x"}), "{}"]
)
def test_a_state_file_that_is_broken_or_newer_is_ignored(text: str) -> None:
    """It is no error: another server is started."""
    assert ServerState.parse(text, "/run") is None


def test_gpus_of_old_and_odd_drivers() -> None:
    """A line may lack the compute capability or have no figures; an error message is no GPU."""
    assert gpus.parse("0, Tesla K80, 11441, 11000, 470.1\n")[0].compute_capability == ""
    assert gpus.parse("0, GB10, [N/A], [N/A], 580.1, 12.1\n")[0].memory_total == 0
    assert gpus.parse("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n") == ()
    assert gpus.most_free(()) is None


@pytest.mark.parametrize(
    ("remote_dir", "filesystem", "where"),
    [
        ("~/.dls", "ext2/ext3", "/tmp/dls-1000/"),
        ("/data/dls", "xfs", "/data/dls/run"),
        ("/data/dls", "nfs", "/tmp/dls-1000/"),
        ("/data/dls", "fuseblk", "/tmp/dls-1000/"),
        ("/" + "d" * 100, "xfs", "/tmp/dls-1000/"),
    ],
)
def test_sockets_go_to_a_local_disk(remote_dir: str, filesystem: str, where: str) -> None:
    """The run directory is never on NFS, and its path is never too long for a socket."""
    assert run_dir(remote_dir, remote_dir, 1000, filesystem).startswith(where)
    assert run_dir("~/.dls", "/h", 1000, "") != run_dir("~/.other", "/h", 1000, "")


@pytest.mark.parametrize("name", ["~/a b", "x y/z", "/tmp/it's", "~/$(touch x)", "~"])
def test_remote_directories_with_odd_names(name: str) -> None:
    """Nothing in a directory's name is run; `~/x` and relative paths start at the home."""
    script = render("paths", NAME=name) + 'printf %s "$(absolute "$NAME")"'
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=True)
    home = os.environ["HOME"]
    expected = {"~": home}.get(name, name if name.startswith("/") else f"{home}/{name.removeprefix('~/')}")
    assert done.stdout == expected


def test_this_machine(connection: Connection, short_folder: Path) -> None:
    """The script reports this machine as Python sees it, with the interpreter that a shell finds."""
    report = probe(connection, str(short_folder / "not yet there"))
    assert report.system == platform.system() and report.machine == platform.machine()
    assert report.home == pwd.getpwuid(os.getuid()).pw_dir and report.uid == os.getuid()
    assert report.free_mib > 100 and report.full and report.servers == ()
    assert report.libc and report.root == str(short_folder / "not yet there")
    found = connection.run("python3 -c 'import sys; print(*sys.version_info[:3])'").stdout.split()
    assert report.pythons[0].version == tuple(int(part) for part in found)
    assert all(Path(python.path).exists() for python in report.pythons)


def test_a_host_with_gpus(connection: Connection, short_folder: Path) -> None:
    """An `nvidia-smi` that does not know compute_cap is run again without it."""
    fake = short_folder / "bin" / "nvidia-smi"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\ncase "$1" in *compute_cap*) echo "Field \\"compute_cap\\" is not a valid field"; exit 2 ;; esac\n'
        'echo "0, Tesla V100, 16160, 16000, 450.1"\n'
    )
    fake.chmod(0o755)
    text = probing.script(str(short_folder), Depth.ALL)
    done = connection.run(f"PATH={short_folder}/bin:$PATH\n{text}")
    assert [gpu.name for gpu in parse(done.stdout, str(short_folder)).gpus] == ["Tesla V100"]


def test_a_state_file_of_another_user_is_not_read(connection: Connection, short_folder: Path) -> None:
    """Another user could leave one that leads to their server; a reused process number is no server either."""
    run = short_folder / "run"
    run.mkdir()
    state = run / "state.json"
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)", "--launch-file"]
    with subprocess.Popen(sleeper) as server:
        state.write_text(json.dumps({**STATE, "pid": server.pid}))
        check_owners(connection, short_folder, run, state)
        server.kill()
    state.write_text(json.dumps({**STATE, "pid": os.getpid()}))  # this number belongs to another process now
    assert probe(connection, str(short_folder)).servers == ()


def check_owners(connection: Connection, short_folder: Path, run: Path, state: Path) -> None:
    assert probe(connection, str(short_folder)).servers
    state.rename(run / "real.json")
    state.symlink_to("real.json")
    assert probe(connection, str(short_folder)).servers == ()
    if os.geteuid() == 0:
        state.unlink()
        (run / "real.json").rename(state)
        os.chown(run, 65534, 65534)
        assert probe(connection, str(short_folder)).servers == ()
        os.chown(run, 0, 0)
    else:
        state.unlink()
