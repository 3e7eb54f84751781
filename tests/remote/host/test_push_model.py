"""A model brought to a host over SSH."""

from __future__ import annotations

from pathlib import Path

import pytest

from dls.errors import HostError, TargetError
from dls.remote.host.push_model import model_files, push
from dls.remote.progress import Phase, Silent
from dls.remote.ssh.connection import Connection

DATA = {"plans.json": b"{}", "fold_0/it's.pth": bytes(range(256)) * 20_000, "empty": b"", ".hidden": b"x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "my model"
    for name, data in DATA.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(data)
    return made


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, text: str) -> None:
        self.lines.append(text)


def test_a_model_arrives_whole_and_once(connection: Connection, folder: Path, short_folder: Path) -> None:
    """Every file but hidden ones; the second time nothing is sent."""
    lines = Lines()
    place = push(connection, folder, str(short_folder), Phase(lines))
    assert place == f"{short_folder}/models/my model"
    for name, data in DATA.items():
        assert (Path(place) / name).exists() is (name != ".hidden")
        assert name == ".hidden" or (Path(place) / name).read_bytes() == data
    assert any("MB" in line for line in lines.lines)
    again = Lines()
    assert push(connection, folder, str(short_folder), Phase(again)) == place
    assert not any("MB" in line for line in again.lines)


def test_what_was_cut_off_goes_on_and_is_checked(connection: Connection, folder: Path, short_folder: Path) -> None:
    """Only the rest is sent; a part that is wrong is noticed and thrown away."""
    part = short_folder / "models" / ".push-my model" / "fold_0"
    part.mkdir(parents=True)
    whole = DATA["fold_0/it's.pth"]
    (part / "it's.pth").write_bytes(whole[:4_000_000])
    lines = Lines()
    place = push(connection, folder, str(short_folder), Phase(lines))
    assert (Path(place) / "fold_0" / "it's.pth").read_bytes() == whole
    assert next(line for line in lines.lines if "MB" in line) == "4 of 5 MB"
    assert sum("MB" in line for line in lines.lines) <= 4  # a line for each MiB that is sent, and small files
    part.mkdir(parents=True)
    (Path(place) / "plans.json").unlink()
    (part / "it's.pth").write_bytes(b"wrong" + whole[5:4_000_000])
    with pytest.raises(HostError, match="not what was sent"):
        push(connection, folder, str(short_folder), Phase(Silent()))
    push(connection, folder, str(short_folder), Phase(Silent()))
    assert (Path(place) / "fold_0" / "it's.pth").read_bytes() == whole


def test_an_empty_folder(tmp_path: Path) -> None:
    """Is no model."""
    with pytest.raises(TargetError, match="no files"):
        model_files(tmp_path)
