"""`dls connect` over each carrier, to an answer through the local port, with one login in the SSH server's log."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import ForwardError, HostKeyError
from dls.remote.ssh.pipe import Pipe
from dls.remote.tunnel.link import LinkState
from tests.support.connecting import click_once, connected
from tests.support.processes import until

HIDE_SSHD = 'unshare -m sh -c \'mount --bind /dev/null "$(PATH=$PATH:/usr/sbin command -v sshd)" && exec "$0" "$@"\''
"""Runs a command on a machine that has no sshd: this one, in a mount namespace."""


@contextlib.contextmanager
def own_host(folder: Path, options: str = "") -> Iterator[tuple[sshd.Server, Path]]:
    """An SSH server of the test's own, and its log."""
    with sshd.running(folder, options=options) as server:
        yield server, folder / "sshd.log"


def logins(log: Path) -> int:
    return log.read_text().count("Accepted publickey")


def running(program: str, argument: str) -> list[list[str]]:
    """Return the command lines of the processes of that program with that argument."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_text(errors="replace").split("\0")
            if Path(words[0]).name == program and argument in words:
                found.append(words)
    return found


def without_sshd_works() -> bool:
    return subprocess.run([*shlex.split(HIDE_SSHD), "true"], capture_output=True, check=False).returncode == 0


def test_ssh_as_a_child_process(clean: str, short_folder: Path) -> None:
    """With --carrier openssh, `ssh` logs in once, and clicks are answered; closing ends it."""
    with own_host(short_folder) as (host, log):
        with connected(host, clean, login={"carrier": "openssh"})[0] as session:
            assert session.connection.kind == "openssh"
            click_once(session.port)
        assert logins(log) == 1
        until(lambda: not running("ssh", str(host.config)))


def test_a_lost_ssh_is_started_again(clean: str, short_folder: Path) -> None:
    """When the child process dies, the link is restored by another one."""
    with own_host(short_folder) as (host, log), connected(host, clean, login={"carrier": "openssh"})[0] as session:
        [pipe] = session.connection.carriers
        assert isinstance(pipe, Pipe)
        pipe.process.kill()
        until(lambda: logins(log) == 2 and session._link.state is LinkState.OPEN)
        click_once(session.port)


def test_any_command_that_runs_another_one(clean: str, host: sshd.Server) -> None:
    """With --via, a command that runs `sh` is enough: no SSH server listens."""
    with connected(host, clean, login={"via": "env"})[0] as session:
        assert session.connection.kind == "via"
        click_once(session.port)


@pytest.mark.slow
@pytest.mark.skipif(not without_sshd_works(), reason="needs root, to hide sshd in a mount namespace")
def test_a_host_without_sshd(clean: str, host: sshd.Server) -> None:
    """Where the host has no sshd, asyncssh is installed there and serves the connection."""
    with connected(host, clean, login={"via": HIDE_SSHD})[0] as session:
        assert "AsyncSSH" in session.connection.transport.remote_version
        click_once(session.port)


FORBIDDING = ["DisableForwarding yes", "AllowTcpForwarding no", "PermitOpen none"]


@pytest.mark.parametrize("setting", FORBIDDING)
def test_a_host_that_forbids_forwarding(clean: str, short_folder: Path, setting: str) -> None:
    """It is told before anything is installed there; with --through-exec a command's channel is the way."""
    with own_host(short_folder, setting) as (host, log):
        with pytest.raises(ForwardError, match="forbids every kind of forwarding") as refused:
            connected(host, f"{short_folder}/never")
        assert "--through-exec" in refused.value.hint and not (short_folder / "never" / "env").exists()
        before = logins(log)
        with connected(host, clean, login={"through_exec": True})[0] as session:
            click_once(session.port)
        assert logins(log) == before + 1


def test_a_jump_host_that_forbids_forwarding(clean: str, short_folder: Path, host: sshd.Server) -> None:
    """With --through-exec, the way leads through a command on the jump host too."""
    with own_host(short_folder, "DisableForwarding yes") as (jump, _):
        config = short_folder / "both"
        text = jump.config.read_text().replace("Host dls-demo", "Host jump") + host.config.read_text()
        config.write_text(text + "  ProxyJump jump\n")
        both = sshd.Server(host.program, host.port, config)
        with pytest.raises(ForwardError, match="jump forbids forwarding"):
            connected(both, clean)
        with connected(both, clean, login={"through_exec": True})[0] as session:
            click_once(session.port)


def test_a_running_control_master(clean: str, short_folder: Path) -> None:
    """A connection that `ssh` shares is used: no login at all."""
    with own_host(short_folder) as (host, log):
        host.config.write_text(host.config.read_text() + f"  ControlPath {short_folder}/%C\n")
        ssh = ["ssh", "-F", str(host.config)]
        subprocess.run(
            [*ssh, "-M", "-N", "-f", "-o", "ControlPersist=yes", "dls-demo"], check=True, stderr=subprocess.DEVNULL
        )
        try:
            before = logins(log)
            session, reporter = connected(host, clean)
            with session:
                click_once(session.port)
            assert logins(log) == before == 1
            assert reporter.phases.count("login") == 1
        finally:
            subprocess.run([*ssh, "-O", "exit", "dls-demo"], check=False, capture_output=True)


@pytest.mark.parametrize(
    ("via", "words"),
    [("false", "status 1"), ("no-such-program", "can't be started"), ("sh -c cat", "ran no shell")],
)
def test_a_command_that_runs_no_shell(host: sshd.Server, via: str, words: str) -> None:
    """The message says how the command ended; a command that only repeats its input is no shell."""
    arguments = [sys.executable, "-m", "dls", "connect", "--via", via, "box"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 11 and words in done.stderr and "Traceback" not in done.stderr


def test_options_that_ssh_has_too(clean: str, host: sshd.Server, short_folder: Path) -> None:
    """`-o`, `-l`, `-p` and `-4` reach a host that no configuration names."""
    text = dict(line.split(maxsplit=1) for line in host.config.read_text().splitlines())
    (short_folder / "empty").touch()
    arguments = [
        sys.executable, "-m", "dls", "stop", "-F", str(short_folder / "empty"),
        "-o", f"IdentityFile={text['IdentityFile']}", "-o", f"UserKnownHostsFile={text['UserKnownHostsFile']}",
        "-l", text["User"], "-p", text["Port"], "-4", "--remote-dir", clean, "127.0.0.1",
    ]  # fmt: skip
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "No server was running there." in done.stderr) == (0, True), done.stderr


def test_new_host_keys_of_jump_hosts(clean: str, host: sshd.Server, short_folder: Path) -> None:
    """With --accept-new-host-key, `ssh` gets past a jump host that is not known either, and nobody is asked."""
    with own_host(short_folder) as (jump, log):
        (short_folder / "known_hosts").unlink()
        config = short_folder / "both"
        text = jump.config.read_text().replace("Host dls-demo", "Host jump") + host.config.read_text()
        config.write_text(text + "  ProxyJump jump\n")
        both = sshd.Server(host.program, host.port, config)
        with pytest.raises(HostKeyError, match="not known"):
            connected(both, clean, login={"carrier": "openssh"})
        with connected(both, clean, login={"carrier": "openssh", "accept_new_host_key": True})[0] as session:
            click_once(session.port)
        assert logins(log) == 1
