"""Profiles on the command line: kept, used by every command for the host, and wrong lines named."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from dls.cli import profiles
from dls.cli.connect import connect as connect_command
from dls.cli.host import sessions, stop
from dls.demo import sshd
from dls.errors import TargetError
from dls.remote.user import memory
from dls.remote.user.profile_file import ProfileFile
from tests.support.command_line import run_dls
from tests.support.connect_process import ConnectProcess
from tests.support.connecting import click_once

ALL = """
--engine nninteractive --device cuda:1 --gpu 1 --stand-in --model m -m /m -k --ca-bundle /c --no-network --compile
--no-native-api --session-dir /s --session-ttl 3 --session-disk 5.5 --idle 0 --local-port 8912 --local-secret
--stop-server -i /id -i /id2 -p 2222 -l ann -J bastion -o Compression=yes -o "User=a b" -6 --carrier paramiko
--via "docker exec -i x" --through-exec --save-password --remote-dir /data/dls --slurm --time 4h --renew -F /config
--partition gpu --account a --qos q --gres gpu:2 --cpus 4 --mem 16G --constraint c --sbatch-option x=y
--no-lend-network --notify --no-page
"""


def options_of(words: list[str], target: str = "gpu1") -> dict[str, Any]:
    """Return what `dls connect` is called with for a command line."""
    context = connect_command.make_context("connect", [*words, target])
    options = {name: value for name, value in context.params.items() if name != "target"}
    return profiles.apply(context, target, options)


def keep(words: list[str], target: str = "gpu1") -> None:
    context = connect_command.make_context("connect", [*words, target])
    profiles.save(target, profiles.read_given(context))


def test_every_option_that_is_kept_means_the_same_again(own_user_folder: Path) -> None:
    """What was typed once, the profile says from then on: whatever options are added, this test asks for them here."""
    words = shlex.split(ALL)
    keep(words)
    kept = set(ProfileFile.read().hosts["gpu1"])
    assert set(profiles.list_keys()) - kept == {"here"}, "an option is not in ALL, and another way to say --slurm is"
    assert options_of([]) == options_of(words)
    assert options_of([], "gpu2") == options_of([], "")
    assert not kept & profiles.NOT_KEPT


def test_the_command_line_wins(own_user_folder: Path) -> None:
    """Over each kind of option, also where it says the default; and what was kept besides stays kept."""
    keep(shlex.split("--engine region --slurm -6 --no-native-api -i /a --time 4h"))
    found = options_of(shlex.split("--engine auto --here -4 --native-api -i /b"))
    assert (found["engine"], found["mode"], found["address_family"], found["native_api"]) == (
        "auto",
        "here",
        "inet",
        True,
    )
    assert found["identities"] == (Path("/b"),) and found["time"] == "4h"
    keep(shlex.split("--here --gpu 2"))
    assert ProfileFile.read().hosts["gpu1"] == {
        "engine": "region", "address-family": "inet6", "native-api": False, "identity": ["/a"], "time": "4h",
        "gpu": 2, "here": True,
    }  # fmt: skip


def test_paths_of_this_computer(own_user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept whole, and `~` means the home in the file as it does in a shell."""
    monkeypatch.chdir("/tmp")
    keep(["-i", "key"])
    assert ProfileFile.read().hosts["gpu1"] == {"identity": ["/tmp/key"]}
    ProfileFile.read().with_host("gpu1", {"identity": "~/key", "ssh-config": "none"}).write()
    assert options_of([])["identities"] == (Path.home() / "key",) and str(options_of([])["ssh_config"]) == "none"


def test_commands_take_what_they_know() -> None:
    """`dls stop` knows no engine, and `dls sessions` knows where sessions are."""
    names = {parameter.name for parameter in stop.params}
    assert "engine" not in names and "jump" in names
    assert "session_dir" in {parameter.name for parameter in sessions.params}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('engin = "region"', "engin is no option of a host"),
        ("engine = 3", "engine: 3 is not a text in quotes"),
        ('gpu = "1"', 'gpu: "1" is not a whole number'),
        ("gpu = true", "gpu: true is not a whole number"),
        ("gpu = -1", "gpu: -1 is not in the range"),
        ("local-port = 70000", "local-port: 70000 is not in the range"),
        ('idle = "long"', 'idle: "long" is not a number'),
        ("here = 1", "here: 1 is neither true nor false"),
        ('device = "toaster"', "device: 'toaster' is none of"),
        ('address-family = "inet5"', 'address-family: "inet5" is none of inet, inet6'),
        ('carrier = "pigeon"', "carrier: 'pigeon' is not one of"),
        ("ssh-option = [1]", "ssh-option: 1 is not a text in quotes"),
        ("jump = {a = 1}", "a is no option of a host"),
        ('password-file = "/p"', "password-file is no option of a host"),
        ("engine = ", "this is not TOML"),
        ("when = 2026-01-01", "when is no option of a host"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(line: str, message: str, own_user_folder: Path) -> None:
    """By every command for that host, in one sentence, before anything is tried."""
    own_user_folder.mkdir()
    (own_user_folder / "hosts.toml").write_text(f'# mine\n\n["gpu1"]\nuser = "ann"\n{line}\n')
    with pytest.raises(TargetError) as caught:
        options_of([])
        problems = [p for host in ProfileFile.read().hosts for p in profiles.find_problems(ProfileFile.read(), host)]
        raise problems[0]
    assert caught.value.message.startswith(f"{own_user_folder}/hosts.toml, line 5: {message}") or "jump" in line
    assert message in caught.value.message and caught.value.hint


def test_wrong_lines_on_the_command_line(own_user_folder: Path) -> None:
    """Another host's line stops nobody; `dls hosts` names all of them, and a likely key for a wrong one."""
    own_user_folder.mkdir()
    file = own_user_folder / "hosts.toml"
    file.write_text('["no-such-host.invalid"]\nuser = "ann"\n\n["gpu1"]\nengin = "region"\ngpu = "1"\n')
    done = run_dls("stop", "gpu1")
    assert done.returncode == 10 and f"Error: {file}, line 5: engin is no option" in done.stderr
    assert "Did you mean engine?" in done.stderr
    assert run_dls("stop", "no-such-host.invalid").returncode == 11
    listed = run_dls("hosts")
    assert listed.returncode == 10 and "line 5" in listed.stderr and "line 6" in listed.stderr
    assert "no-such-host.invalid" in listed.stdout and 'user = "ann"' in listed.stdout
    file.write_text('engine = "region"\n')
    listed = run_dls("hosts")
    assert listed.returncode == 10 and "line 1: engine stands before the first host" in listed.stderr


def test_a_host_is_shown_and_forgotten(own_user_folder: Path) -> None:
    """The profile and that the host was used go together; a host of another name is none that is known."""
    keep(["--engine", "region", "--gpu", "1"])
    memory.remember("gpu1")
    shown = run_dls("hosts", "show", "gpu1")
    assert shown.returncode == 0 and shown.stdout == '["gpu1"]\nengine = "region"\ngpu = 1\n'
    assert f"{own_user_folder}/hosts.toml, line 1" in shown.stderr
    assert "today" in run_dls("hosts").stdout
    assert run_dls("hosts", "forget", "gpu1").returncode == 0
    assert ProfileFile.read().hosts == {} and memory.used_before() == []
    for verb in ("show", "forget"):
        assert run_dls("hosts", verb, "gpu1").returncode == 10
    assert "No host is known yet" in run_dls("hosts").stderr


def test_a_host_that_was_saved_needs_its_name_only(host: sshd.Server, clean: str, own_user_folder: Path) -> None:
    """Connected to once with --save, it is connected to by name, up to a click, and every other command finds it."""
    own_user_folder.mkdir()
    options = ("-F", host.config, "--remote-dir", clean, "--idle", 7, "--save")
    first = ConnectProcess(own_user_folder, *options, "dls-demo")
    try:
        kept = ProfileFile.read().hosts["dls-demo"]
        assert kept == {
            "ssh-config": str(host.config), "remote-dir": clean, "idle": 7.0, "local-port": first.port,
            "engine": "region",
        }  # fmt: skip
        assert any("Kept for dls-demo" in str(event.get("text")) for event in first.events)
    finally:
        first.close()
    second = ConnectProcess(own_user_folder, "dls-demo")
    try:
        assert second.port != first.port
        click_once(second.port)
    finally:
        second.close()
    assert [(used.target, used.count) for used in memory.used_before()] == [("dls-demo", 2)]
    assert run_dls("logs", "dls-demo").returncode == 0
    stopped = run_dls("stop", "dls-demo")
    assert stopped.returncode == 0 and "Ended the server (region)" in stopped.stderr


@pytest.mark.slow
def test_a_profile_that_can_not_be_written_costs_no_connection(
    host: sshd.Server, clean: str, own_user_folder: Path
) -> None:
    """The reason is a note, and the local port answers."""
    own_user_folder.mkdir()
    (own_user_folder / "hosts.toml").write_text("dls-demo = {}\n")
    process = ConnectProcess(own_user_folder, "-F", host.config, "--remote-dir", clean, "--save", "dls-demo")
    try:
        assert any("can't be changed by dls" in str(event.get("text")) for event in process.events)
        click_once(process.port)
    finally:
        process.close()
    assert (own_user_folder / "hosts.toml").read_text() == "dls-demo = {}\n"
