"""`dls connect` over each carrier, to an answer through the local port, with one login in the SSH server's log."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import ConnectError, ForwardError, HostKeyError
from dls.remote.carriers.private_folder import make_private_folder
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.exceptions import NoCommonAlgorithm
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.tunnel.link import LinkState
from tests.support import pipe
from tests.support.connecting import click_once, connected
from tests.support.processes import until
from tests.support.prompters import ScriptedPrompter

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
            until(lambda: logins(log) == 1)  # sshd writes its log after its answer
            session, reporter = connected(host, clean)
            with session:
                click_once(session.port)
            assert logins(log) == 1
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


def test_a_target_that_needs_ssh_behind_a_jump_host(clean: str, host: sshd.Server, short_folder: Path) -> None:
    """With -J too, the jump host that is logged in to stays the way: one login on each."""
    with own_host(short_folder, "KexAlgorithms sntrup761x25519-sha512@openssh.com") as (modern, log):
        config = short_folder / "both"
        config.write_text(modern.config.read_text() + host.config.read_text().replace("Host dls-demo", "Host jump"))
        both = sshd.Server(modern.program, modern.port, config)
        with connected(both, clean, login={"jump": "jump"})[0] as session:
            assert session.connection.kind == "openssh"
            click_once(session.port)
        assert logins(log) == 1


def test_a_proxy_command_that_asks(host: sshd.Server, short_folder: Path) -> None:
    """An `ssh -W` that meets an unknown host key has no terminal: ours goes on, and the person is asked."""
    with own_host(short_folder) as (jump, _):
        (short_folder / "known_hosts").unlink()
        config = short_folder / "both"
        text = jump.config.read_text().replace("Host dls-demo", "Host jump") + host.config.read_text()
        config.write_text(f"{text}  ProxyCommand ssh -F {config} -W %h:%p jump\n")
        person = ScriptedPrompter(accept_host_keys=True)
        connection = log_in("dls-demo", LoginOptions(ssh_config=config), person, Phases(Silent()))
        assert connection.run("echo there").stdout == "there"
        connection.close()
        assert len(person.host_keys) == 1


@pytest.mark.parametrize("name", ["keys", "a folder with blanks"])
def test_keys_of_the_inner_connection_are_removed(short_folder: Path, name: str) -> None:
    """The folder on the host with the keys of this one connection goes when the connection is open."""
    folder = short_folder / name
    folder.mkdir()
    login = LoginOptions(via=f"env 'TMPDIR={folder}'")
    connection = log_in("box", login, NoPrompter(), Phases(Silent()))
    assert "OpenSSH" in connection.transport.remote_version
    until(lambda: not list(folder.iterdir()))
    connection.close()


def test_a_command_that_prints_without_end() -> None:
    """It is told, not waited for, and its output is not kept."""
    with pytest.raises(ConnectError, match="ran no shell") as caught:
        log_in("box", LoginOptions(via="yes"), NoPrompter(), Phases(Silent()))
    assert len(caught.value.detail) < 3000


LOCK_ROOT = (
    "unshare -m sh -c 'sed s/^root:[^:]*:/root:!:/ /etc/shadow >{0} && chmod 640 {0} && "
    'mount --bind {0} /etc/shadow && exec "$0" "$@"\''
)
"""Runs a command on a machine where root's account is locked, as in many containers."""


@pytest.mark.slow
@pytest.mark.skipif(not without_sshd_works(), reason="needs root, to lock an account in a mount namespace")
def test_a_locked_account(clean: str, short_folder: Path) -> None:
    """Where sshd would refuse the user who runs it, asyncssh serves."""
    login = LoginOptions(via=LOCK_ROOT.format(short_folder / "shadow"), remote_dir=clean)
    connection = log_in("box", login, NoPrompter(), Phases(Silent()))
    assert "AsyncSSH" in connection.transport.remote_version
    connection.close()


def test_a_place_for_sockets(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TMPDIR is too long for a socket, another place is found."""
    long = short_folder / ("x" * 120)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = make_private_folder("dls-x-", runs_programs=True)
    assert made.parent == Path("/tmp") and made.stat().st_mode & 0o77 == 0
    assert not list(long.iterdir())
    made.rmdir()


def test_a_modern_host_behind_a_proxy_command(short_folder: Path) -> None:
    """A host that has no algorithm in common with paramiko is no failure of the command that leads to it."""
    with own_host(short_folder, "KexAlgorithms sntrup761x25519-sha512@openssh.com") as (modern, log):
        command = f"{sys.executable} {Path(pipe.__file__)} %h %p"
        modern.config.write_text(modern.config.read_text() + f"  ProxyCommand {command}\n")
        login = LoginOptions(ssh_config=modern.config, carrier="paramiko")
        with pytest.raises(NoCommonAlgorithm, match="no key exchange in common"):
            log_in("dls-demo", login, NoPrompter(), Phases(Silent()))
        connection = log_in("dls-demo", LoginOptions(ssh_config=modern.config), NoPrompter(), Phases(Silent()))
        assert connection.kind == "openssh" and connection.run("echo there").stdout == "there"
        connection.close()
        assert logins(log) == 1
