"""A model is sent to a host over SSH."""

from __future__ import annotations

from pathlib import Path

import pytest

from dls.errors import HostError, TargetError
from dls.remote.host.push_model import ModelFolder, push
from dls.remote.progress import Phase, Silent, Transfer
from dls.remote.ssh.connection import Connection

DATA = {"plans.json": b"{}", "fold_0/it's.pth": bytes(range(256)) * 20_000, "empty": b"", ".hidden": b"x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "my model"
    for name, data in DATA.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(data)
    return model


class Transfers(Silent):
    """Records how far the transfer was."""

    def __init__(self) -> None:
        self.shown: list[Transfer] = []

    def transfer(self, transfer: Transfer) -> None:
        self.shown.append(transfer)


def test_a_model_is_sent_completely_and_once(connection: Connection, folder: Path, short_folder: Path) -> None:
    """Every file but hidden ones is sent; a second push sends nothing."""
    transfers = Transfers()
    place = push(connection, ModelFolder(folder), str(short_folder), Phase(transfers))
    assert place == f"{short_folder}/models/my model"
    for name, data in DATA.items():
        assert (Path(place) / name).exists() is (name != ".hidden")
        assert name == ".hidden" or (Path(place) / name).read_bytes() == data
    total = sum(len(data) for name, data in DATA.items() if name != ".hidden")
    assert (transfers.shown[0].done, transfers.shown[-1].done) == (0, total)
    assert all(shown.total == total for shown in transfers.shown)
    second = Transfers()
    assert push(connection, ModelFolder(folder), str(short_folder), Phase(second)) == place
    assert second.shown == []


def test_an_interrupted_push_resumes_and_is_checked(connection: Connection, folder: Path, short_folder: Path) -> None:
    """Only the missing bytes are sent; a part with wrong bytes is noticed and removed."""
    part = short_folder / "models" / ".push-my model" / "fold_0"
    part.mkdir(parents=True)
    whole = DATA["fold_0/it's.pth"]
    (part / "it's.pth").write_bytes(whole[:4_000_000])
    transfers = Transfers()
    place = push(connection, ModelFolder(folder), str(short_folder), Phase(transfers))
    assert (Path(place) / "fold_0" / "it's.pth").read_bytes() == whole
    assert transfers.shown[0].done == 4_000_000
    part.mkdir(parents=True)
    (Path(place) / "plans.json").unlink()
    (part / "it's.pth").write_bytes(b"wrong" + whole[5:4_000_000])
    with pytest.raises(HostError, match="not what was sent"):
        push(connection, ModelFolder(folder), str(short_folder), Phase(Silent()))
    push(connection, ModelFolder(folder), str(short_folder), Phase(Silent()))
    assert (Path(place) / "fold_0" / "it's.pth").read_bytes() == whole


def test_an_empty_folder(tmp_path: Path) -> None:
    """A folder without files is no model."""
    with pytest.raises(TargetError, match="no files"):
        _ = ModelFolder(tmp_path).files
