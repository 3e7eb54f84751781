"""Ways in from their first step to a click that is answered through the local port, with one login each."""

from __future__ import annotations

from pathlib import Path

import pytest

import dls
from tests.support import kerberos_lab, security_key, smart_card
from tests.support.accounts import needs_root
from tests.support.agents import agent, silent_agent
from tests.support.connecting import click_once
from tests.support.control_master import master
from tests.support.openssh import Server, allow, serving, write
from tests.support.pam_lab import GOOGLE, code_line, has_module, pam_lab, script_line
from tests.support.processes import free_port
from tests.support.ways import Answers, Nobody, Person, Transcript, Way, parse_login

pytestmark = pytest.mark.slow


def click(way: Way, remote_dir: str, *options: str, answers: Answers | None = None) -> str:
    """Connect, click once, and close; returns what was shown and asked.

    Fails unless each server of the way was logged in to once.
    """
    transcript = Transcript()
    prompter = Nobody(transcript) if answers is None else Person(transcript, answers, None)
    before = [server.logins for server in way.servers]
    with pytest.MonkeyPatch.context() as environment:
        for name, value in way.env.items():
            environment.setenv(name, value)
        login = parse_login(way, "--remote-dir", remote_dir, *options)
        with dls.connect("lab", login=login, prompter=prompter, reporter=transcript, local_port=free_port()) as session:
            click_once(session.port)
    assert [server.logins - earlier for server, earlier in zip(way.servers, before, strict=True)] == [1] * len(before)
    asked = prompter.prompts if isinstance(prompter, Person) else []
    return "\n".join([*transcript.texts, *asked])


@pytest.mark.skipif(bool(kerberos_lab.missing_programs()), reason="needs Kerberos")
def test_a_ticket(clean: str, lab: Path) -> None:
    """A Kerberos ticket is all that the host takes."""
    with kerberos_lab.realm(lab / "realm") as realm, kerberos_lab.kerberized(lab / "server", realm) as server:
        realm.take_ticket()
        click(Way(write(lab, kerberos_lab.section(server)), (server,), realm.env), clean)


@pytest.mark.skipif(smart_card.find_module() is None, reason="needs a smart card in software")
def test_a_smart_card(clean: str, lab: Path) -> None:
    """The host takes the key of a smart card, whose PIN is asked for once."""
    card = smart_card.insert(lab / "card")
    with serving(lab / "server") as server:
        (server.folder / "authorized_keys").write_text(card.public_key)
        config = write(lab, server.section("lab", f"PKCS11Provider {card.module}", key=False))
        click(Way(config, (server,), card.env), clean, answers={"PIN": smart_card.PIN})


@pytest.mark.skipif(security_key.missing() is not None, reason="needs a security key in software")
def test_a_security_key(clean: str, lab: Path) -> None:
    """The host takes a security key."""
    provider = security_key.provider(lab)
    key = security_key.make_key(lab / "key", provider)
    with serving(lab / "server") as server:
        (server.folder / "authorized_keys").write_text("")
        allow(server, key)
        lines = (f"IdentityFile {key}", "IdentitiesOnly yes", f"SecurityKeyProvider {provider}")
        click(Way(write(lab, server.section("lab", *lines, key=False)), (server,)), clean)


@needs_root
@pytest.mark.skipif(not has_module(GOOGLE), reason="asks for one-time codes")
def test_a_key_and_a_code(clean: str, lab: Path) -> None:
    """The host wants a key and a one-time code, says where the code is, and gets one code."""
    show = script_line(lab, "auth", "echo 'Look at your phone.'")
    methods = "AuthenticationMethods publickey,keyboard-interactive"
    with pam_lab(lab, [show, code_line(lab)], methods, own=False) as made:
        way = Way(write(lab, made.server.section()), (made.server,))
        shown = click(way, clean, answers={"ode": made.new_code()})
        assert "Look at your phone." in shown


@needs_root
@pytest.mark.skipif(not has_module(GOOGLE), reason="asks for one-time codes")
def test_a_jump_host_that_asks_for_a_code(clean: str, lab: Path, server: Server) -> None:
    """The jump host wants a code, the host behind it a key."""
    methods = "AuthenticationMethods publickey,keyboard-interactive"
    with pam_lab(lab, [code_line(lab)], methods, own=False) as made:
        config = write(lab, server.section("lab", "ProxyJump jump") + made.server.section("jump"))
        click(Way(config, (server, made.server)), clean, answers={"ode": made.new_code()})


def test_a_proxy_command(clean: str, lab: Path, server: Server) -> None:
    """The host is reached by `ssh -W` through another one."""
    with serving(lab / "jump") as jump:
        text = server.section("lab", f"ProxyCommand ssh -F {lab}/config -W %h:%p jump") + jump.section("jump")
        click(Way(write(lab, text), (server, jump)), clean)


def test_an_agent_of_the_configuration(clean: str, lab: Path, server: Server) -> None:
    """IdentityAgent names the agent; SSH_AUTH_SOCK names one that never answers."""
    with agent(lab, server.key) as socket, silent_agent(lab) as silent:
        config = write(lab, server.section("lab", f"IdentityAgent {socket}", key=False))
        click(Way(config, (server,), {"SSH_AUTH_SOCK": str(silent)}), clean)


def test_a_command_that_knows_host_keys(clean: str, lab: Path, server: Server) -> None:
    """KnownHostsCommand is the only one that knows the host's key."""
    lines = (f"KnownHostsCommand /bin/cat {server.known_hosts}", "UserKnownHostsFile /dev/null")
    click(Way(write(lab, server.section("lab", *lines, known=False)), (server,)), clean)


def test_modern_algorithms(clean: str, lab: Path) -> None:
    """The host has only a key exchange and a cipher of the last years."""
    options = ("KexAlgorithms sntrup761x25519-sha512@openssh.com", "Ciphers chacha20-poly1305@openssh.com")
    with serving(lab / "server", *options) as server:
        click(Way(write(lab, server.section()), (server,)), clean)


@pytest.mark.parametrize("limit", ["MaxSessions 1", "AllowStreamLocalForwarding no", "PermitOpen any"])
def test_a_narrow_host(clean: str, lab: Path, limit: str) -> None:
    """The host allows less than others, and enough."""
    with serving(lab / "server", limit) as server:
        click(Way(write(lab, server.section()), (server,)), clean)


def test_a_shared_connection_whose_key_has_gone(clean: str, lab: Path) -> None:
    """`ssh` shares a connection that could not be made again: no login, and a click that is answered."""
    with serving(lab / "server") as server:
        config = write(lab, server.section("lab", f"ControlPath {lab}/cm"))
        with master(config, server):
            server.key.unlink()
            click(Way(config), clean)
        assert server.logins == 1  # the master's own
