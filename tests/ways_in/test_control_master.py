"""Logins where `ssh` already shares a connection to the host: no other login is made, and no other code is typed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.control_master import master
from tests.support.openssh import Server, running, serving, write
from tests.support.processes import until
from tests.support.ways import Client, Way


@pytest.mark.parametrize("token", ["%C", "%r@%h:%p", "%n-%u"])
def test_a_running_master(client: Client, server: Server, lab: Path, token: str) -> None:
    """The connection goes through the master, whatever tokens its socket's name has: the host sees no login."""
    config = write(lab, server.section("lab", f"ControlPath {lab}/cm-{token}"))
    with master(config, server):
        outcome = client.enter(Way(config, (server,)))
        assert outcome.entered and outcome.logins == (0,), outcome


def test_a_path_from_the_command_line(client: Client, server: Server, lab: Path) -> None:
    """-o ControlPath names the master's socket."""
    config = write(lab, server.section("lab", f"ControlPath {lab}/cm"))
    with master(config, server):
        config = write(lab, server.section())
        outcome = client.enter(Way(config, (server,)), "-o", f"ControlPath={lab}/cm")
        assert outcome.entered and outcome.logins == (0,), outcome


def test_a_login_that_could_not_be_made_again(client: Client, lab: Path) -> None:
    """The key has gone since the master logged in, as a one-time code has: nothing is asked."""
    with serving(lab / "server") as server:
        config = write(lab, server.section("lab", f"ControlPath {lab}/cm"))
        with master(config, server):
            server.key.unlink()
            outcome = client.enter(Way(config, (server,)), answers={})
            assert outcome.entered and outcome.logins == (0,) and not outcome.asked, outcome


@pytest.mark.parametrize("value", ["auto", "autoask", "yes", "no"])
def test_control_master_in_the_configuration(client: Client, server: Server, lab: Path, value: str) -> None:
    """Whatever ControlMaster says of masters to come, one that runs is used; a login of one's own is made only
    where `ControlMaster yes` wants to be the master."""
    config = write(lab, server.section("lab", f"ControlPath {lab}/cm", f"ControlMaster {value}"))
    with master(config, server):
        outcome = client.enter(Way(config, (server,)))
        assert outcome.entered and outcome.logins[0] <= int(value == "yes"), outcome


@pytest.mark.parametrize("kind", ["none yet", "a socket that nobody listens at", "a file"])
def test_no_master(client: Client, server: Server, lab: Path, kind: str) -> None:
    """Without a master there is one login, and a socket that a dead one left behind does no harm."""
    path = lab / "cm"
    if kind == "a socket that nobody listens at":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    if kind == "a file":
        path.touch()
    config = write(lab, server.section("lab", f"ControlPath {path}"))
    outcome = client.enter(Way(config, (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_a_master_that_takes_no_more_sessions(client: Client, lab: Path) -> None:
    """The host allows one session a connection, and the master's is taken: a login of its own is made."""
    with serving(lab / "server", "MaxSessions 1") as server:
        config = write(lab, server.section("lab", f"ControlPath {lab}/cm"))
        with master(config, server), running(["ssh", "-F", str(config), "lab", f"touch {lab}/began; exec sleep 60"]):
            until((lab / "began").exists)
            outcome = client.enter(Way(config, (server,)))
            assert outcome.entered and outcome.logins == (1,), outcome


def test_a_master_of_the_jump_host(client: Client, server: Server, lab: Path) -> None:
    """A master that runs for the jump host carries the connection to the host behind it."""
    with serving(lab / "jump") as jump:
        text = server.section("lab", "ProxyJump jump") + jump.section("jump", f"ControlPath {lab}/cm-%C")
        config = write(lab, text)
        with master(config, jump, "jump"):
            outcome = client.enter(Way(config, (server, jump)))
            assert outcome.entered and outcome.logins == (1, 0), outcome


def test_a_master_behind_a_jump_host(client: Client, server: Server, lab: Path) -> None:
    """A master that runs for the host itself needs no jump host any more."""
    with serving(lab / "jump") as jump:
        text = server.section("lab", "ProxyJump jump", f"ControlPath {lab}/cm-%C") + jump.section("jump")
        config = write(lab, text)
        with master(config, server):
            outcome = client.enter(Way(config, (server, jump)))
            assert outcome.entered and outcome.logins == (0, 0), outcome
