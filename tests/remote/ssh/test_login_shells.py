"""Scripts run the same whatever the account's login shell is and prints, and what its login files do wrong is named."""

from __future__ import annotations

import os
import shlex
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


BASH, TCSH = "/bin/bash", "/usr/bin/tcsh"
SECRET = '{"format": 1, "pid": 7, "secret": "s3cr3t-of-the-server", "code": "c"}'
SCRIPT = f"printf 'state\\t/run\\t%s\\n' '{SECRET}'"
"""A script that prints a server's secret, as the probe does."""


def run_under(name: str, home: Path, folder: Path, **login_files: str) -> HostError:
    """Run the script as the account with these login files, and return the error."""
    for file, text in login_files.items():
        (home / f".{file}").write_text(f"{text}\n")
    folder.chmod(0o755)
    with sshd.running(folder, options="PasswordAuthentication yes") as server:
        connection = open_connection(server, name)
        with pytest.raises(HostError) as caught:
            connection.run(SCRIPT, timeout=60)
        connection.close()
    assert caught.value.exit_code == 14 and caught.value.hint
    assert "s3cr3t" not in caught.value.message + caught.value.hint + caught.value.detail
    assert "printf" not in caught.value.detail
    return caught.value


@pytest.mark.parametrize("account", [BASH], indirect=True)
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("read answer", "reads the input"),
        ("read a; read b; read c", "reads the input"),
        ("read -n 1 a", "reads the input"),
        ("while read line; do echo $line; done", "reads the input"),
        ("cat", "reads the input"),
        ("cat; exit 3", "status 3"),
        ("exit 1", "ended with status 1 before"),
        ("exec true", "ended with status 0 before"),
        ("exec cat", "ended with status 0 before"),
        ("kill -9 $$", "ended with status -1 before"),
        ('[ -n "$AGAIN" ] || AGAIN=1 exec bash', "starts another shell"),
        ("exec dash", "starts another shell"),
        ("exec zsh", "starts another shell"),
        pytest.param("yes", "prints without end", marks=pytest.mark.slow),
    ],
)
def test_a_login_file_that_gets_in_the_way(account: tuple[str, Path], short_folder: Path, text: str, what: str) -> None:
    """The error names it, and shows neither our script nor what that prints: nothing of it was run."""
    if "zsh" in text and not Path("/bin/zsh").exists():
        pytest.skip("zsh is not installed")
    name, home = account
    error = run_under(name, home, short_folder, bashrc=text)
    assert what in error.message and "~/.bashrc" in error.message


@pytest.mark.parametrize("account", [TCSH], indirect=True)
@pytest.mark.parametrize(
    ("text", "what"),
    [("set answer = $<", "reads the input"), ("exec false", "status 1 before"), ("exec dash", "starts another shell")],
)
def test_a_login_file_of_csh_that_gets_in_the_way(
    account: tuple[str, Path], short_folder: Path, text: str, what: str
) -> None:
    """It is named too."""
    name, home = account
    error = run_under(name, home, short_folder, cshrc=text)
    assert what in error.message and "~/.cshrc" in error.message


@pytest.mark.slow
@pytest.mark.parametrize("account", [BASH], indirect=True)
@pytest.mark.parametrize("text", ["sleep 600", "while sleep 1; do echo .; done"])
def test_a_login_file_that_waits(account: tuple[str, Path], short_folder: Path, text: str) -> None:
    """It is named instead of the link, since the host's SSH server answers; output does not lengthen the wait."""
    name, home = account
    assert "waits for something" in run_under(name, home, short_folder, bashrc=text).message


@pytest.mark.parametrize("account", [BASH], indirect=True)
def test_a_traced_shell_prints_no_secret(account: tuple[str, Path], short_folder: Path) -> None:
    """Standard error, which errors show, has what a shell with tracing on ran, without the secret."""
    name, home = account
    (home / ".bashrc").write_text("set -x; export SHELLOPTS\n")
    short_folder.chmod(0o755)
    with sshd.running(short_folder, options="PasswordAuthentication yes") as server:
        connection = open_connection(server, name)
        done = connection.run(f"exec bash -c {shlex.quote(SCRIPT)}")
        connection.close()
    assert "s3cr3t" in done.stdout and "printf" in done.stderr and "s3cr3t" not in done.stderr
