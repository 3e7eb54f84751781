"""The two clients, a folder for a lab, and a server that many tests share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.remote.ssh.openssh_config import home_directory
from tests.support.openssh import Server, serving
from tests.support.ways import Client, Dls, OpenSsh, parameters


@pytest.fixture(params=parameters(OpenSsh(), Dls()))
def client(request: pytest.FixtureRequest) -> Client:
    """OpenSSH's client and ours, one after the other: what a test says is true of both.

    Where it matters which of our carriers logs in, a module has CARRIED as the third.
    """
    found: Client = request.param
    return found


@pytest.fixture
def lab(short_folder: Path) -> Path:
    """A folder that the accounts of a lab can look into."""
    short_folder.chmod(0o755)
    return short_folder


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A server that takes one key, without anything odd."""
    folder = Path(tempfile.mkdtemp(prefix="dls-w-"))
    folder.chmod(0o755)
    with serving(folder / "server") as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def usual_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let $HOME be the home of the user database, which is the one that `ssh` uses whatever $HOME says."""
    monkeypatch.setenv("HOME", str(home_directory()))
