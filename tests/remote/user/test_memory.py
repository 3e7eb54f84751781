"""What is remembered of this computer's user."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from dls.remote.user import memory
from dls.remote.user.folders import VARIABLE, config_folder, state_folder, write_private

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def test_hosts_are_remembered_with_the_last_one_first(own_user_folder: Path) -> None:
    """Each with the time of its last use and a count; the file is its user's alone."""
    for minutes, target in enumerate(["a", "ann@b", "a"]):
        memory.remember(target, NOON + timedelta(minutes=minutes))
    assert [(host.target, host.count) for host in memory.used_before()] == [("a", 2), ("ann@b", 1)]
    assert memory.used_before()[0].last == NOON + timedelta(minutes=2)
    assert (own_user_folder / memory.HOSTS_FILE).stat().st_mode & 0o777 == 0o600
    assert own_user_folder.stat().st_mode & 0o777 == 0o700
    assert memory.forget("a") and not memory.forget("a")
    assert [host.target for host in memory.used_before()] == ["ann@b"]


def test_the_oldest_are_forgotten(own_user_folder: Path) -> None:
    """The file does not grow without end, and a host that is used again is none of the oldest."""
    for number in range(memory.MOST_HOSTS):
        memory.remember(f"h{number}", NOON + timedelta(minutes=number))
    memory.remember("h0", NOON + timedelta(days=1))
    memory.remember("new", NOON + timedelta(days=2))
    found = [host.target for host in memory.used_before()]
    assert len(found) == memory.MOST_HOSTS and found[:2] == ["new", "h0"] and "h1" not in found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        '{"format": 2, "entries": {"a": {}}}',
        '{"format": 1, "entries": {"a": 3}}',
        '{"format": 1, "entries": {"a": {"last": "2026-03-01"}}}',
        '{"format": 1, "entries": {"a": {"last": "x", "count": 1}}}',
        '{"format": 1, "entries": {"a": {"last": "9999-12-31T23:59:59-14:00", "count": 1}}}',
    ],
)
def test_a_broken_file_counts_as_empty(text: str, own_user_folder: Path) -> None:
    """Nothing that is remembered is worth a failure; the next host is remembered again."""
    own_user_folder.mkdir()
    (own_user_folder / memory.HOSTS_FILE).write_text(text)
    assert memory.used_before() == []
    memory.remember("b")
    assert "b" in [host.target for host in memory.used_before()]


def test_a_folder_that_can_not_be_written(own_user_folder: Path) -> None:
    """The connection goes on: nothing is remembered, and nothing fails."""
    own_user_folder.write_text("a file in its place")
    memory.remember("a")
    assert memory.used_before() == [] and not memory.agree("licence")


def test_the_system_says_where_files_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the variable, by the system's own rules: on Linux XDG's."""
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert (config_folder(), state_folder()) == (tmp_path / "c" / "dls", tmp_path / "s" / "dls")


def test_a_link_stays_one(tmp_path: Path) -> None:
    """Who keeps settings in a repository finds the change there."""
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_private(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
