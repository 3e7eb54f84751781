"""Scripts run the same whatever the account's login shell is and prints."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import HostError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from tests.support.logins import PASSWORD, target_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, so it needs root")


def open_connection(server: sshd.Server, user: str) -> Connection:
    return Connection.open(replace(target_of(server), user=user), NoPrompter(), password=PASSWORD)


@pytest.mark.parametrize("account", ["/bin/bash", "/usr/bin/tcsh", "/usr/bin/fish"], indirect=True)
def test_login_shells_that_are_not_sh(account: tuple[str, Path], short_folder: Path) -> None:
    """Output, status and quoting are right under csh and fish, with rc files that print text and fail."""
    name, home = account
    entry = subprocess.run(["getent", "passwd", name], capture_output=True, text=True, check=True).stdout
    shell = entry.strip().split(":")[-1]
    if not Path(shell).exists():
        pytest.fail(f"{shell} is not installed (on Debian and Ubuntu: apt install tcsh fish)")
    (home / ".config/fish").mkdir(parents=True)
    for rc in (".bashrc", ".cshrc", ".config/fish/config.fish"):
        (home / rc).write_text("echo 'Welcome to the cluster!'\nno-such-command-anywhere\n")
    subprocess.run(["chown", "-R", name, str(home)], check=True)
    short_folder.chmod(0o755)
    with sshd.running(short_folder, options="PasswordAuthentication yes") as server:
        connection = open_connection(server, name)
        assert connection.run("printf '%s\\n' 'it'\"'\"'s !here' \"$0\"").stdout.splitlines()[0] == "it's !here"
        assert connection.run("exit 7").status == 7
        assert connection.run(f"printf content >{home}/file").status == 0
        assert (home / "file").read_bytes() == b"content"
        connection.close()


@pytest.mark.parametrize("account", ["/bin/false"], indirect=True)
def test_a_login_shell_that_runs_nothing(account: tuple[str, Path], short_folder: Path) -> None:
    """A shell that runs no commands raises HostError; its empty output is not taken for the script's."""
    short_folder.chmod(0o755)
    with sshd.running(short_folder, options="PasswordAuthentication yes") as server:
        connection = open_connection(server, account[0])
        with pytest.raises(HostError, match="does not run commands"):
            connection.run("echo hello")
        connection.close()
