"""The hosts that are offered where none is named."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from dls.cli.known_hosts import MOST, Known, describe_age, list_aliases, list_known
from dls.remote.user import memory
from dls.remote.user.profile_file import ProfileFile
from tests.cli.test_host import run_on_terminal
from tests.support.command_line import run_dls

CONFIG = """\
Include more/*
Host gpu1 gpu2 *.example.org !gpu3
  HostName 10.0.0.1
host=bastion
Host "with space" gpu1
Host *
  User ann
Match host x
#Host commented
Hostname nothing
Host
"""


def test_names_of_an_ssh_configuration() -> None:
    """Those of `Host` lines without patterns, in their order, each once."""
    assert list_aliases(CONFIG) == ["gpu1", "gpu2", "bastion", "with space"]
    assert list_aliases('Host "open\nHost a=b') == ['"open', "a=b"]


def test_where_hosts_are_known_from(tmp_path: Path, own_user_folder: Path) -> None:
    """Used before with the last one first, then with a profile, then in the SSH configuration and what it includes."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a").write_text("Host included\n")
    (tmp_path / "config").write_text(CONFIG.replace("more/*", f"{tmp_path}/more/*"))
    now = datetime.now(timezone.utc)
    for days, target in ((40, "old"), (0, "ann@gpu2"), (1, "gpu1")):
        memory.remember(target, now - timedelta(days=days))
    ProfileFile.read().with_host("gpu1", {}).with_host("kept", {}).write()
    assert list_known(tmp_path / "config") == [
        Known("ann@gpu2", "used today"),
        Known("gpu1", "used yesterday, profile"),
        Known("old", "used 40 days ago"),
        Known("kept", "profile"),
        Known("included", "SSH configuration"),
        Known("gpu2", "SSH configuration"),
        Known("bastion", "SSH configuration"),
        Known("with space", "SSH configuration"),
    ]
    assert [host.target for host in list_known(tmp_path / "none")] == ["ann@gpu2", "gpu1", "old", "kept"]


def test_days_are_those_of_the_calendar() -> None:
    """What was used last evening was used yesterday."""
    morning = datetime(2026, 3, 2, 8).astimezone()
    assert describe_age(morning - timedelta(hours=12), morning) == "yesterday"
    assert describe_age(morning - timedelta(hours=7), morning) == "today"
    assert describe_age(morning + timedelta(days=1), morning) == "today"


@pytest.fixture
def config(tmp_path: Path, own_user_folder: Path) -> Path:
    """A configuration with two hosts that can't be reached; the second one was used before."""
    memory.remember("second")
    path = tmp_path / "config"
    path.write_text("Host first\n HostName first.invalid\nHost second\n HostName second.invalid\n")
    return path


@pytest.mark.parametrize(
    ("answer", "goes_to"), [("", "second.invalid"), ("2", "first.invalid"), ("other.invalid", "other.invalid")]
)
def test_the_last_one_is_offered_first(config: Path, answer: str, goes_to: str) -> None:
    """Return takes it, a number another one, and a name any other."""
    code, shown = run_on_terminal(["connect", "-F", str(config)], {"[1: second]: ": answer})
    assert code == 11 and f"No host is known as '{goes_to}'" in shown
    assert "1  second  used today" in shown and "2  first   SSH configuration" in shown


def test_a_number_that_is_not_in_the_list(config: Path) -> None:
    """It is told, and the question comes again; Ctrl-D ends the command."""
    code, shown = run_on_terminal(["connect", "-F", str(config)], {"[1: second]: ": "9", "no number 9": "\x04"})
    assert "There is no number 9." in shown and code == 130


def test_a_profile_is_obeyed_for_the_host_that_was_chosen(config: Path) -> None:
    """Choosing a host means what naming it means."""
    ProfileFile.read().with_host("second", {"engine": "magic"}).write()
    code, shown = run_on_terminal(["connect", "-F", str(config)], {"[1: second]: ": ""})
    assert code == 10 and "no engine named 'magic'" in shown


def test_a_long_list_is_cut(config: Path) -> None:
    """The rest can be named; nothing is said of where it is from: hosts that were used count too."""
    with config.open("a") as stream:
        stream.writelines(f"Host h{number}\n" for number in range(MOST))
    _, shown = run_on_terminal(["connect", "-F", str(config)], {"[1: second]: ": ""})
    assert "and 2 more\n" in shown.replace("\r\n", "\n") and f"h{MOST - 1}" not in shown


def test_nothing_is_asked_without_a_terminal(config: Path) -> None:
    """The command says to name the host, and so it does where no host is known."""
    done = run_dls("connect", "-F", str(config))
    assert done.returncode == 2 and "no terminal to choose a host at: name one" in done.stderr
    memory.forget("second")
    config.write_text("")
    code, shown = run_on_terminal(["connect", "-F", str(config)], {})
    assert code == 2 and "No host is known yet: name one" in shown
