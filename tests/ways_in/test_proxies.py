"""Logins through jump hosts and through proxy commands."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import pipe
from tests.support.agents import agent
from tests.support.openssh import Server, make_key, serving, write
from tests.support.ways import Client, Dls, Way

SSH = f"{shutil.which('ssh')} -F {{config}}"
PIPE = f"{sys.executable} -I {pipe.__file__}"


@contextlib.contextmanager
def chain(lab: Path, count: int) -> Iterator[list[Server]]:
    """Run this many servers: the host first, then the jump host next to it, and so on."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(serving(lab / f"server{number}")) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2])
def test_jump_hosts(client: Client, lab: Path, count: int) -> None:
    """ProxyJump with one and with two jump hosts: one login on each server."""
    with chain(lab, count + 1) as servers:
        names = [f"jump{number}" for number in range(count)]
        sections = [server.section(name) for name, server in zip(names, servers[1:], strict=True)]
        text = servers[0].section("lab", f"ProxyJump {','.join(reversed(names))}") + "".join(sections)
        outcome = client.enter(Way(write(lab, text), tuple(servers)))
        assert outcome.entered and outcome.logins == (1,) * (count + 1), outcome


def test_nested_jump_hosts(client: Client, lab: Path) -> None:
    """The jump host has a jump host of its own in its own section."""
    with chain(lab, 3) as servers:
        text = servers[0].section("lab", "ProxyJump near") + servers[1].section("near", "ProxyJump far")
        outcome = client.enter(Way(write(lab, text + servers[2].section("far")), tuple(servers)))
        assert outcome.entered and outcome.logins == (1, 1, 1), outcome


def test_two_jump_hosts_of_which_the_first_has_its_own(client: Client, lab: Path) -> None:
    """`ProxyJump a,b`: a's own ProxyJump is followed, b's is not, since a is the way to b."""
    with chain(lab, 4) as servers:
        text = servers[0].section("lab", "ProxyJump a,b") + servers[1].section("b", "ProxyJump nowhere")
        text += servers[2].section("a", "ProxyJump far") + servers[3].section("far")
        outcome = client.enter(Way(write(lab, text), tuple(servers)))
        assert outcome.entered and outcome.logins == (1, 1, 1, 1), outcome


def test_a_jump_host_on_the_command_line(client: Client, lab: Path) -> None:
    """`-J` wins over the configuration, and may name two."""
    with chain(lab, 3) as servers:
        text = servers[0].section("lab", "ProxyJump nowhere") + servers[1].section("near") + servers[2].section("far")
        way = Way(write(lab, text), tuple(servers))
        assert client.enter(way, "-J", "near").logins == (1, 1, 0)
        assert client.enter(way, "-J", "far,near").logins == (1, 1, 1)


def test_a_jump_host_with_user_and_port(client: Client, lab: Path) -> None:
    """A jump host is written as user@host:port and as ssh://user@host:port."""
    with chain(lab, 2) as (server, jump):
        for form in ("{}@127.0.0.1:{}", "ssh://{}@127.0.0.1:{}"):
            target = form.format(jump.user, jump.port)
            text = server.section("lab", f"ProxyJump {target}")
            text += f"Host 127.0.0.1\n  IdentityFile {jump.key}\n  UserKnownHostsFile {jump.known_hosts}\n"
            outcome = client.enter(Way(write(lab, text), (server, jump)))
            assert outcome.entered and outcome.logins == (1, 1), outcome


def test_no_jump_host(client: Client, lab: Path) -> None:
    """`ProxyJump none` keeps a general ProxyJump away, on the jump host itself for example."""
    with chain(lab, 2) as (server, jump):
        general = "Host *\n  ProxyJump jump\n"
        text = server.section("lab") + jump.section("jump", "ProxyJump none") + general
        outcome = client.enter(Way(write(lab, text), (server, jump)))
        assert outcome.entered and outcome.logins == (1, 1), outcome


def test_a_jump_host_behind_itself(lab: Path) -> None:
    """A general ProxyJump that its own host gets too comes to an end; ssh starts one process after the other."""
    with chain(lab, 2) as (server, jump):
        text = "Host *\n  ProxyJump jump\n" + server.section("lab") + jump.section("jump")
        outcome = Dls().enter(Way(write(lab, text), (server, jump)))
        assert outcome.entered or outcome.exit_code == 10, outcome


def test_a_jump_host_that_refuses(client: Client, lab: Path) -> None:
    """A jump host that takes no key of ours is named."""
    with chain(lab, 2) as (server, jump):
        wrong = make_key(lab / "wrong")
        text = server.section("lab", "ProxyJump gate")
        text += jump.section("gate", f"IdentityFile {wrong}", "IdentitiesOnly yes", key=False)
        outcome = client.enter(Way(write(lab, text), (server, jump)))
        assert not outcome.entered and outcome.logins == (0, 0) and outcome.exit_code in (13, 255), outcome
        assert "127.0.0.1" in outcome.said or "gate" in outcome.said, outcome


def test_a_jump_host_that_can_not_reach_the_host(client: Client, lab: Path) -> None:
    """The host's port is closed: the jump host says so, and so do we."""
    with chain(lab, 2) as (server, jump):
        text = server.section("lab", "ProxyJump gate", "Port 1") + jump.section("gate")
        outcome = client.enter(Way(write(lab, text), (server, jump)))
        assert not outcome.entered and outcome.logins == (0, 1) and outcome.exit_code in (11, 255), outcome


PROXY_COMMANDS = {
    "-W": f"{SSH} -W %h:%p jump",
    "through a command": f"{SSH} jump {PIPE} %h %p",
    "tokens": f"sh -c 'test %n = lab && test %r = {{user}} && exec {PIPE} %h %p'",
    "comment": f"{PIPE} %h %p; true %n %r %% # a comment",
}
MORE_PROXY_COMMANDS = {
    "brackets": f"{SSH} -W [%h]:%p %r@jump",
    "python": f"{PIPE} %h %p",
    "redirected": f"{PIPE} %h %p 2>/dev/null",
    "quotes": f'{PIPE} "$(echo %h)" $((%p))',
    "variable": f"{PIPE} ${{LAB_HOST:-%h}} %p",
}


@pytest.mark.parametrize(
    "command",
    [
        *(pytest.param(command, id=name) for name, command in PROXY_COMMANDS.items()),
        *(pytest.param(command, id=name, marks=pytest.mark.slow) for name, command in MORE_PROXY_COMMANDS.items()),
    ],
)
def test_proxy_commands(client: Client, lab: Path, command: str) -> None:
    """A proxy command carries the login: its tokens are filled in, and a shell runs it."""
    with chain(lab, 2) as (server, jump):
        filled = command.replace("{config}", f"{lab}/config").replace("{user}", server.user)
        text = server.section("lab", f"ProxyCommand {filled}") + jump.section("jump")
        outcome = client.enter(Way(write(lab, text), (server, jump)))
        assert outcome.entered and outcome.logins == (1, int("jump" in command)), outcome


@pytest.mark.parametrize("command", ["nc %h %p", "socat - TCP:%h:%p"])
def test_proxy_commands_of_the_system(client: Client, server: Server, lab: Path, command: str) -> None:
    """The usual programs work as proxy commands."""
    if shutil.which(command.split()[0]) is None:
        pytest.skip(f"{command.split()[0]} is not installed (on Debian: netcat-openbsd, socat)")
    config = write(lab, server.section("lab", f"ProxyCommand {command}"))
    outcome = client.enter(Way(config, (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_the_proxy_command_of_a_jump_host(client: Client, lab: Path) -> None:
    """The jump host itself is reached through a proxy command."""
    with chain(lab, 2) as (server, jump):
        text = server.section("lab", "ProxyJump jump") + jump.section("jump", f"ProxyCommand {PIPE} %h %p")
        outcome = client.enter(Way(write(lab, text), (server, jump)))
        assert outcome.entered and outcome.logins == (1, 1), outcome


def test_no_proxy_command(client: Client, server: Server, lab: Path) -> None:
    """`ProxyCommand none` keeps a general one away."""
    text = server.section("lab", "ProxyCommand none") + "Host *\n  ProxyCommand false\n"
    outcome = client.enter(Way(write(lab, text), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_the_first_of_jump_and_command_wins(client: Client, lab: Path) -> None:
    """Of ProxyJump and ProxyCommand, the one that stands first is used."""
    with chain(lab, 2) as (server, jump):
        first = ("ProxyJump jump", "ProxyCommand false")
        text = server.section("lab", *first) + jump.section("jump", "ProxyJump none")
        outcome = client.enter(Way(write(lab, text), (server, jump)))
        assert outcome.entered and outcome.logins == (1, 1), outcome


@pytest.mark.parametrize("command", ["false", "sh -c 'echo no such tunnel >&2; exit 3'", "/does/not/exist %h"])
def test_a_proxy_command_that_fails(client: Client, server: Server, lab: Path, command: str) -> None:
    """What the command says on its standard error is shown: it is the reason."""
    outcome = client.enter(Way(write(lab, server.section("lab", f"ProxyCommand {command}")), (server,)))
    assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (11, 255), outcome
    if "tunnel" in command:
        assert "no such tunnel" in outcome.said, outcome


def test_the_agent_on_the_way_through_a_jump_host(client: Client, lab: Path) -> None:
    """The agent's key gets in at both."""
    with chain(lab, 2) as (server, jump):
        (jump.folder / "authorized_keys").write_bytes((server.folder / "authorized_keys").read_bytes())
        text = server.section("lab", "ProxyJump jump", key=False) + jump.section("jump", key=False)
        with agent(lab, server.key) as socket:
            outcome = client.enter(Way(write(lab, text), (server, jump), {"SSH_AUTH_SOCK": str(socket)}))
        assert outcome.entered and outcome.logins == (1, 1), outcome
