"""Which files list host keys, and what happens to a key that no file lists."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tests.support.openssh import Server, client_version, make_key, public_key, serving, write
from tests.support.ways import CARRIED, Client, Dls, OpenSsh, Way, parameters


@pytest.fixture(params=parameters(OpenSsh(), Dls(), CARRIED))
def client(request: pytest.FixtureRequest) -> Client:
    """OpenSSH's client, and ours by both of its carriers."""
    found: Client = request.param
    return found


FILES = {
    "several": "{lab}/none {lab}/known",
    "quoted": '"{lab}/known hosts"',
    "several, quoted": '{lab}/none "{lab}/known hosts"',
    "%h": "{lab}/known-%h",
    "%n": "{lab}/known-%n",
    "%k": "{lab}/known-%k",
    "%r and %u": "{lab}/known-%r-%u",
    "%d": "%d/{from_home}/known",
    "~": "~/{from_home}/known",
    "${VARIABLE}": "{lab}/${{LAB_KNOWN}}",
}


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_files_of_known_hosts(client: Client, server: Server, lab: Path, files: str) -> None:
    """UserKnownHostsFile may name several files, with tokens, variables and quotes."""
    user = server.user
    for name in ("known", "known hosts", "known-127.0.0.1", "known-lab", f"known-{user}-{user}"):
        (lab / name).write_text(server.known_hosts.read_text())
    (lab / "known-[127.0.0.1]").write_text(server.known_hosts.read_text())
    home = pwd.getpwuid(os.getuid()).pw_dir
    line = f"UserKnownHostsFile {files.format(lab=lab, from_home=os.path.relpath(lab, home))}"
    config = write(lab, server.section("lab", line, "StrictHostKeyChecking yes", known=False))
    outcome = client.enter(Way(config, (server,), {"LAB_KNOWN": "known"}))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_the_global_files(client: Client, server: Server, lab: Path) -> None:
    """GlobalKnownHostsFile names the computer's own files, several of them."""
    lines = (f"GlobalKnownHostsFile {lab}/none {server.known_hosts}", "UserKnownHostsFile /dev/null")
    outcome = client.enter(Way(write(lab, server.section("lab", *lines, known=False)), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize("command", ["/bin/cat {known}", "{lab}/command %H %t %f"])
def test_a_command_that_knows_host_keys(client: Client, server: Server, lab: Path, command: str) -> None:
    """KnownHostsCommand writes lines of known_hosts."""
    program = lab / "command"
    program.write_text(f"#!/bin/sh\ncase $1 in *127.0.0.1*) cat {server.known_hosts};; esac\n")
    program.chmod(0o755)
    lines = (f"KnownHostsCommand {command.format(known=server.known_hosts, lab=lab)}", "UserKnownHostsFile /dev/null")
    config = write(lab, server.section("lab", *lines, "StrictHostKeyChecking yes", known=False))
    outcome = client.enter(Way(config, (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_a_command_that_knows_other_keys(client: Client, server: Server, lab: Path) -> None:
    """A KnownHostsCommand without the host's key leaves it unknown, and one that fails ends the login."""
    for command in ("/bin/true", "/bin/false"):
        lines = (f"KnownHostsCommand {command}", "UserKnownHostsFile /dev/null", "StrictHostKeyChecking yes")
        outcome = client.enter(Way(write(lab, server.section("lab", *lines, known=False)), (server,)))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (12, 255), outcome


def test_an_alias(client: Client, server: Server, lab: Path) -> None:
    """HostKeyAlias is the name under which the key is listed."""
    (lab / "known").write_text(f"cluster {public_key(server.folder / 'host_key')}\n")
    lines = ("HostKeyAlias cluster", f"UserKnownHostsFile {lab}/known", "StrictHostKeyChecking yes")
    outcome = client.enter(Way(write(lab, server.section("lab", *lines, known=False)), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize("value", ["no", "off", "accept-new"])
def test_new_keys_without_a_question(client: Client, server: Server, lab: Path, value: str) -> None:
    """With these values of StrictHostKeyChecking a new key is taken and written down; nobody is asked."""
    lines = (f"StrictHostKeyChecking {value}", f"UserKnownHostsFile {lab}/known")
    outcome = client.enter(Way(write(lab, server.section("lab", *lines, known=False)), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome
    assert public_key(server.folder / "host_key") in (lab / "known").read_text()


@pytest.mark.parametrize("value", ["yes", "ask", "accept-new"])
def test_a_changed_key_is_refused(client: Client, server: Server, lab: Path, value: str) -> None:
    """With these values a changed key is refused; nobody is asked."""
    (lab / "known").write_text(f"[127.0.0.1]:{server.port} {public_key(make_key(lab / 'other'))}\n")
    lines = (f"StrictHostKeyChecking {value}", f"UserKnownHostsFile {lab}/known")
    config = write(lab, server.section("lab", *lines, known=False))
    outcome = client.enter(Way(config, (server,)), accept_host_key=True)
    assert not outcome.entered and outcome.logins == (0,) and not outcome.asked, outcome
    assert outcome.exit_code in (12, 255) and "changed" in outcome.said.lower(), outcome


@pytest.mark.parametrize("is_right", [True, False])
def test_a_new_key_and_a_person(client: Client, server: Server, lab: Path, is_right: bool) -> None:
    """By default the person is asked, and a key that they accept is written down."""
    config = write(lab, server.section("lab", f"UserKnownHostsFile {lab}/known", known=False))
    outcome = client.enter(Way(config, (server,)), accept_host_key=is_right)
    assert outcome.entered == is_right and outcome.logins == (int(is_right),), outcome
    assert (lab / "known").exists() == is_right


def test_strict_checking_asks_nobody(client: Client, server: Server, lab: Path) -> None:
    """With `StrictHostKeyChecking yes` a new key is refused, though a person could be asked."""
    lines = ("StrictHostKeyChecking yes", f"UserKnownHostsFile {lab}/known")
    config = write(lab, server.section("lab", *lines, known=False))
    outcome = client.enter(Way(config, (server,)), accept_host_key=True)
    assert not outcome.entered and not outcome.asked and outcome.exit_code in (12, 255), outcome


@pytest.mark.parametrize("value", ["yes", "no"])
def test_hashed_names(client: Client, server: Server, lab: Path, value: str) -> None:
    """With `HashKnownHosts yes` a new key is written down under a hashed name, and found again."""
    lines = (f"HashKnownHosts {value}", "StrictHostKeyChecking accept-new", f"UserKnownHostsFile {lab}/known")
    config = write(lab, server.section("lab", *lines, known=False))
    assert client.enter(Way(config, (server,))).entered
    text = (lab / "known").read_text()
    assert ("127.0.0.1" in text, text.startswith("|1|")) == (value == "no", value == "yes")
    assert client.enter(Way(config, (server,)), "-o", "StrictHostKeyChecking=yes").entered


@pytest.mark.skipif(client_version() < (9, 1), reason="RequiredRSASize came with OpenSSH 9.1")
def test_a_host_key_that_is_too_short(client: Client, lab: Path) -> None:
    """RequiredRSASize refuses a shorter RSA key of the host, though known_hosts has it."""
    make_key(lab / "rsa", "rsa", more=("-b", "2048"))
    with serving(lab / "server", f"HostKey {lab}/rsa") as server:
        (lab / "known").write_text(f"[127.0.0.1]:{server.port} {public_key(lab / 'rsa')}\n")
        lines = (f"UserKnownHostsFile {lab}/known", "StrictHostKeyChecking yes", "HostKeyAlgorithms rsa-sha2-512")
        way = Way(write(lab, server.section("lab", *lines, known=False)), (server,))
        assert client.enter(way).logins == (1,)
        outcome = client.enter(way, "-o", "RequiredRSASize=3072")
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (11, 12, 255), outcome
        assert client.name != "dls" or "RequiredRSASize" in outcome.said, outcome


def test_no_checks_for_this_computer(client: Client, server: Server, lab: Path) -> None:
    """With `NoHostAuthenticationForLocalhost yes`, a loopback address needs no known key."""
    lines = ("NoHostAuthenticationForLocalhost yes", "UserKnownHostsFile /dev/null")
    outcome = client.enter(Way(write(lab, server.section("lab", *lines, known=False)), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_a_file_that_can_not_be_written(client: Client, server: Server, lab: Path) -> None:
    """Where known_hosts is /dev/null, a key that the person accepted gets in, and is not called known now."""
    config = write(lab, server.section("lab", "UserKnownHostsFile /dev/null", known=False))
    outcome = client.enter(Way(config, (server,)), accept_host_key=True)
    assert outcome.entered and outcome.logins == (1,) and "is now known" not in outcome.said, outcome


def test_lines_that_can_not_be_read(client: Client, server: Server, lab: Path) -> None:
    """Odd lines in known_hosts are passed over."""
    odd = "nonsense\n127.0.0.1 ssh-odd AAAA\n@strange * ssh-ed25519 AAAA\n|1|x|y ssh-rsa AAAA\n\ufeff\n#\n\n"
    (lab / "known").write_text(odd + server.known_hosts.read_text() + "no line end")
    lines = (f"UserKnownHostsFile {lab}/known", "StrictHostKeyChecking yes")
    outcome = client.enter(Way(write(lab, server.section("lab", *lines, known=False)), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome
