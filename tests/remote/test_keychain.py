"""Passwords in the system's keychain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import DlsError
from dls.remote.commands import forget_passwords, host
from dls.remote.keychain import find
from dls.remote.login import LoginOptions
from dls.remote.progress import Silent
from dls.remote.ssh.prompts import NoPrompter
from tests.support.logins import PASSWORD
from tests.support.prompters import ScriptedPrompter


@pytest.fixture
def keychain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A keychain of the test's own."""
    import keyring

    before = keyring.get_keyring()  # keyring finds the class below by itself, once it is loaded
    from tests.support.keychain import FileKeychain

    monkeypatch.setenv("DLS_TEST_KEYCHAIN", str(tmp_path / "keychain"))
    keyring.set_keyring(FileKeychain())  # type: ignore[no-untyped-call]
    yield tmp_path / "keychain"
    keyring.set_keyring(before)


def test_a_password_is_kept_used_and_forgotten(account: tuple[str, Path], short_folder: Path, keychain: Path) -> None:
    """A password that was accepted is kept; a later login asks nobody; a wrong one in the keychain is told."""
    settings = "PasswordAuthentication yes\nPubkeyAuthentication no"
    with sshd.running(short_folder, options=settings) as server:
        target = f"{account[0]}@dls-demo"
        wrong_first = ScriptedPrompter({"password": ["wrong", PASSWORD]})
        with host(target, LoginOptions(ssh_config=server.config, save_password=True), wrong_first, Silent()):
            pass
        assert list(json.loads(keychain.read_text()).values()) == [PASSWORD]
        with host(target, LoginOptions(ssh_config=server.config), NoPrompter(), Silent()) as (connection, _):
            assert connection.credential == "a password"
        name = f"{account[0]}@127.0.0.1:{server.port}"
        assert find(name) == PASSWORD
        keychain.write_text(json.dumps({f"dls {name}": "old"}))
        person = ScriptedPrompter({"password": PASSWORD})
        with host(target, LoginOptions(ssh_config=server.config), person, Silent()):
            assert len(person.prompts) == 1
        assert json.loads(keychain.read_text()) == {f"dls {name}": "old"}  # not asked to keep it
        assert forget_passwords(target, LoginOptions(ssh_config=server.config)) == [f"{target}:{server.port}"]
        assert find(name) is None
        with pytest.raises(DlsError), host(target, LoginOptions(ssh_config=server.config), NoPrompter(), Silent()):
            pass


def test_forgetting_on_the_command_line(host: sshd.Server, tmp_path: Path) -> None:
    """`dls forget` says whether there was a password."""
    kept = tmp_path / "keychain"
    environment = {
        **os.environ,
        "PYTHON_KEYRING_BACKEND": "tests.support.keychain.FileKeychain",
        "DLS_TEST_KEYCHAIN": str(kept),
    }
    kept.write_text(json.dumps({f"dls ann@127.0.0.1:{host.port}": "x"}))
    arguments = [sys.executable, "-m", "dls", "forget", "-F", str(host.config), "ann@dls-demo"]
    said = [
        subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=True).stderr
        for _ in range(2)
    ]
    assert "no longer in the keychain" in said[0] and "No password was kept" in said[1]
    assert json.loads(kept.read_text()) == {}


def test_saving_needs_a_keychain(host: sshd.Server) -> None:
    """Without one, --save-password says so before anything else happens."""
    environment = {**os.environ, "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
    arguments = [sys.executable, "-m", "dls", "stop", "--save-password", "-F", str(host.config), "dls-demo"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 10 and "no keychain" in done.stderr
