"""`dls uninstall`: the host is as it was, and what is not ours stays."""

from __future__ import annotations

import hashlib
import json
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import dls
from dls.demo import sshd
from dls.remote.host.uninstall import Belonging, read_list
from tests.support.accounts import account, needs_root
from tests.support.command_line import run_dls
from tests.support.connecting import click_once, connected
from tests.support.model_hub import TINY as MODEL

SHARED = ("/tmp", "/var/tmp", "/dev/shm")


def describe(path: Path) -> tuple[int, int, str]:
    """Return what there is to compare of a file: its mode, its owner, and its content or where it leads."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    else:
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
    return status.st_mode, status.st_uid, content


def snapshot(user: str) -> dict[str, tuple[int, int, str]]:
    """Return all that the user has on this machine: the home without its caches, and files in the shared places."""
    home = Path(pwd.getpwnam(user).pw_dir)
    command = ["find", str(home), *SHARED, "-user", user, "-print0"]
    names = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode()
    found = {}
    for path in sorted(map(Path, names.split("\0")[:-1])):
        if home / ".cache" not in (path, *path.parents):
            found[str(path)] = describe(path)
    return found


@pytest.fixture
def user() -> Iterator[str]:
    """A user of this machine, of whom nothing is left from an earlier test."""
    with account("dlsgone") as name:
        number = pwd.getpwnam(name).pw_uid
        for place in (f"/tmp/dls-{number}", f"/var/tmp/dls-{number}", f"/dev/shm/dls-{number}"):
            shutil.rmtree(place, ignore_errors=True)
        yield name


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("remote_dir", ["~/.dls", "{home}/work/deep/dls"])
def test_the_host_is_as_it_was(user: str, short_folder: Path, remote_dir: str) -> None:
    """After a connect with an image and clicks, nothing of it is left, byte for byte, but for caches in the home."""
    remote_dir = remote_dir.format(home=pwd.getpwnam(user).pw_dir)
    short_folder.chmod(0o755)
    with sshd.running(short_folder) as server:
        (short_folder / "authorized_keys").chmod(0o644)
        options = ("-F", str(server.config), "-l", user, "--remote-dir", remote_dir)
        subprocess.run(["su", user, "-c", "mkdir -p ~/work && echo mine >~/work/notes"], check=True)
        before = snapshot(user)
        login = dls.LoginOptions(ssh_config=server.config, user=user, remote_dir=remote_dir)
        with dls.connect("dls-demo", login=login) as session:
            click_once(session.port)
            busy = run_dls("uninstall", *options, "--yes", "dls-demo")
            assert busy.returncode == 14 and "Somebody is connected" in busy.stderr
            click_once(session.port)
        during = snapshot(user)
        assert len(set(during) - set(before)) > 100
        listed = run_dls("uninstall", *options, "--yes", "--json", "dls-demo")
        assert listed.returncode == 0, listed.stderr
        assert "Ended the server" in listed.stderr and "sessions stay" not in listed.stderr
        events = [json.loads(line) for line in listed.stdout.splitlines()]
        found = {event["kind"] for event in events if event["event"] == "belonging"}
        assert {"packages", "code", "log", "sessions", "run directory"} <= found
        assert snapshot(user) == before
        again = run_dls("uninstall", *options, "--yes", "dls-demo")
        assert again.returncode == 0 and "Nothing of dls is on dls-demo" in again.stderr
        assert snapshot(user) == before


def test_what_is_not_ours_stays(host: sshd.Server, tmp_path: Path) -> None:
    """In a directory that the user named: what has another name stays, is named, and so does the directory."""
    root = tmp_path / "work"
    for name in ("env/x/bin", "code/k/dls", "log", "mine"):
        (root / name).mkdir(parents=True)
    (root / "mine" / "thesis").write_text("years")
    (root / "env" / "link").symlink_to(root / "mine")
    options = ("-F", str(host.config), "--remote-dir", str(root), "dls-demo")
    asked = run_dls("uninstall", *options)
    assert asked.returncode == 10 and "--yes" in asked.stderr and (root / "env").exists()
    done = run_dls("uninstall", "--yes", *options)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in root.iterdir()] == ["mine"] and f"{root}/mine is not ours and stays." in done.stderr
    assert (root / "mine" / "thesis").read_text() == "years"


def test_models_go_only_if_dls_put_them_there(host: sshd.Server, tmp_path: Path) -> None:
    """Without --models none goes; with it the one with our mark goes, and that of another program stays."""
    models = tmp_path / "m" / "models"
    for name in ("ours", "theirs"):
        (models / name).mkdir(parents=True)
    (models / ".ours.by-dls").touch()
    options = ("--yes", "-F", str(host.config), "--remote-dir", str(tmp_path / "r"), "-m", str(tmp_path / "m"))
    kept = run_dls("uninstall", *options, "dls-demo")
    assert kept.returncode == 0 and "--models removes them too" in kept.stderr and "Nothing of dls" in kept.stderr
    assert (models / "ours").exists()
    done = run_dls("uninstall", *options, "--models", "--json", "dls-demo")
    assert done.returncode == 0 and f'"path": "{models}/ours"' in done.stdout
    assert sorted(path.name for path in models.iterdir()) == ["theirs"]
    assert "--models removes" not in run_dls("uninstall", *options, "dls-demo").stderr


@pytest.mark.parametrize("made_before", [False, True])
def test_folders_that_a_push_has_made_go_with_it(host: sshd.Server, tmp_path: Path, made_before: bool) -> None:
    """Above the models too, where they were missing before; those that were there stay, however empty they are."""
    (tmp_path / "model").mkdir()
    shutil.copytree(MODEL, tmp_path / "model", dirs_exist_ok=True)
    place, options = tmp_path / "big" / "disk", ("-F", str(host.config), "--remote-dir", str(tmp_path / "r"))
    if made_before:
        place.mkdir(parents=True)
    models = f"{place}/deep/models/"
    pushed = run_dls("models", "push", *options, "-m", models, "dls-demo", str(tmp_path / "model"))
    assert pushed.returncode == 0 and (place / "deep/models/models/model/plans.json").exists(), pushed.stderr
    (place / "deep/models/models/.push-cut").mkdir()
    done = run_dls("uninstall", "--yes", *options, "-m", models, "--models", "dls-demo")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == (["big", "model"] if made_before else ["model"])
    assert not made_before or (place.exists() and not list(place.iterdir()))


@pytest.mark.parametrize(("mark", "left"), [("", ["a"]), ("{a}", []), ("/elsewhere", ["a"])])
def test_no_folder_goes_that_may_be_another_ones(host: sshd.Server, tmp_path: Path, mark: str, left: list[str]) -> None:
    """The mark in the folder with the models says which one was made first; one goes where it does not."""
    models = tmp_path / "a" / "b"
    (models / "models" / ".push-cut").mkdir(parents=True)
    (models / ".by-dls").write_text(mark.format(a=tmp_path / "a"))
    options = ("--yes", "-F", str(host.config), "--remote-dir", str(tmp_path / "r"), "-m", str(models), "--models")
    assert run_dls("uninstall", *options, "dls-demo").returncode == 0
    assert not models.exists() and [path.name for path in tmp_path.iterdir()] == left


def test_a_server_that_is_in_use_stays(host: sshd.Server, clean: str) -> None:
    """Its client would set it up again, so nothing is removed while one is connected."""
    with connected(host, clean)[0] as session:
        done = run_dls("uninstall", "--yes", "-F", str(host.config), "--remote-dir", clean, "dls-demo")
        assert done.returncode == 14 and "Somebody is connected" in done.stderr
        click_once(session.port)


def test_the_list_of_a_host() -> None:
    """A line that is no line of the list is none, and a folder that two places name is there once."""
    line = "packages\t1200\t/home/a/.dls/env\n"
    text = f"{line}{line}Motd\nlog\tx\t/l\nlog\t\t/home/a/.dls/log\n"
    assert read_list(text) == [Belonging("packages", "/home/a/.dls/env", 1200), Belonging("log", "/home/a/.dls/log", 0)]
