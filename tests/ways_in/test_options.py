"""The command line's options and the destination, and lines of the configuration that keep out or could disturb."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.openssh import Server, serving, write
from tests.support.ways import Client, Dls, Way

REFUSING = {
    "PubkeyAuthentication no": [],
    "PreferredAuthentications password": [],
    "PreferredAuthentications keyboard-interactive,password": [],
    "PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256": [],
    "HostKeyAlgorithms ecdsa-sha2-nistp256": [],
    "Port 1": [],
    "User no-such-user": [],
    "HostName 127.0.0.3": [],
    "StrictHostKeyChecking yes": ["UserKnownHostsFile /dev/null"],
    "HostKeyAlias elsewhere": [],
}  # fmt: skip
"""Lines that keep a login with the key away, though nothing else has changed."""


@pytest.mark.parametrize("line", REFUSING)
@pytest.mark.parametrize("place", ["configuration", pytest.param("command line", marks=pytest.mark.slow)])
def test_lines_that_keep_out(client: Client, server: Server, lab: Path, line: str, place: str) -> None:
    """A line counts in the configuration and as -o on the command line, which wins."""
    lines = [*REFUSING[line], *([line] if place == "configuration" else [])]
    name, _, value = line.partition(" ")
    options = ["-o", f"{name}={value}"] if place == "command line" else []
    outcome = client.enter(Way(write(lab, server.section("lab", *lines)), (server,)), *options)
    assert not outcome.entered and outcome.logins == (0,), outcome


def test_options_win(client: Client, server: Server, lab: Path) -> None:
    """-o, -l, -p, -i and -4 win over the configuration."""
    wrong = write(lab, server.section("lab", "Port 1", "User nobody", "IdentityFile /none", "AddressFamily inet6"))
    options = ["-p", str(server.port), "-l", server.user, "-i", str(server.key), "-4"]
    assert client.enter(Way(wrong, (server,)), *options).logins == (1,)
    options = ["-o", f"Port={server.port}", "-o", f"User {server.user}", "-o", "AddressFamily=any"]
    assert client.enter(Way(wrong, (server,)), *options).logins == (1,)


def test_the_first_of_several_options_wins(client: Client, server: Server, lab: Path) -> None:
    """Of two -o with the same name, the first counts; -o values may be quoted and have a blank instead of `=`."""
    config = write(lab, server.section())
    options = ["-o", f"port {server.port}", "-o", "Port=1", "-o", f'IdentityFile="{server.key}"']
    outcome = client.enter(Way(config, (server,)), *options)
    assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize("option", ["Odd=1", "Port=many", "ProxyCommand"])
def test_a_bad_option(client: Client, server: Server, lab: Path, option: str) -> None:
    """-o with an unknown name or a bad value is refused."""
    outcome = client.enter(Way(write(lab, server.section()), (server,)), "-o", option)
    assert not outcome.entered and outcome.exit_code in (10, 255) and outcome.logins == (0,), outcome


@pytest.mark.parametrize(("option", "is_in"), [("-4", True), ("-6", False)])
def test_address_families(client: Client, server: Server, lab: Path, option: str, is_in: bool) -> None:
    """The server listens on IPv4 only; its name has both kinds of address."""
    config = write(lab, server.section("lab", "HostName localhost", "HostKeyAlias [127.0.0.1]"))
    server_alias = f"[127.0.0.1]:{server.port}"
    config.write_text(config.read_text().replace("HostKeyAlias [127.0.0.1]", f"HostKeyAlias {server_alias}"))
    outcome = client.enter(Way(config, (server,)), option)
    assert outcome.entered == is_in, outcome


@pytest.mark.parametrize("place", ["configuration", "command line"])
def test_the_address_to_connect_from(client: Client, lab: Path, place: str) -> None:
    """BindAddress is the address that the host sees."""
    lines = ["BindAddress 127.0.0.7"] if place == "configuration" else []
    options = ["-o", "BindAddress=127.0.0.7"] if place == "command line" else []
    with serving(lab / "server") as server:
        outcome = client.enter(Way(write(lab, server.section("lab", *lines)), (server,)), *options)
        assert outcome.entered and f"Accepted publickey for {server.user} from 127.0.0.7" in server.log, outcome


@pytest.mark.parametrize("form", ["{user}@lab", "ssh://lab", "ssh://{user}@lab", "ssh://{user}@lab:{port}"])
def test_destinations(client: Client, server: Server, lab: Path, form: str) -> None:
    """The destination may have a user, and as a URI a port, which win over the configuration."""
    wrong = [] if "port" not in form else ["Port 1"]
    wrong += ["User nobody"] if "user" in form else []
    config = write(lab, server.section("lab", *wrong))
    outcome = client.enter(Way(config, (server,)), host=form.format(user=server.user, port=server.port))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_match_user_of_the_destination(client: Client, server: Server, lab: Path) -> None:
    """`Match user` sees the user that the destination or -l names."""
    usual = server.section().partition("\n")[2]
    config = write(lab, f"Match user {server.user} host lab\n{usual}Host lab\n  Port 1\n")
    assert client.enter(Way(config, (server,)), host=f"{server.user}@lab").logins == (1,)
    assert client.enter(Way(config, (server,)), "-l", server.user).logins == (1,)


def test_batch_mode(client: Client, lab: Path) -> None:
    """With `BatchMode yes` nothing is asked, though somebody could answer."""
    with serving(lab / "server", "PasswordAuthentication yes", "PubkeyAuthentication no") as server:
        config = write(lab, server.section("lab", "BatchMode yes"))
        outcome = client.enter(Way(config, (server,)), answers={"assword": "wrong"})
        assert not outcome.entered and not outcome.asked and outcome.exit_code in (13, 255), outcome
        config = write(lab, server.section("lab", "BatchMode yes", "UserKnownHostsFile /dev/null"))
        outcome = client.enter(Way(config, (server,)), accept_host_key=True)
        assert not outcome.entered and not outcome.asked and outcome.exit_code in (12, 255), outcome


ODD = [
    "RemoteCommand echo no",
    "RequestTTY force",
    "SessionType none",
    "StdinNull yes",
    "ForkAfterAuthentication yes",
    "LogLevel QUIET",
    "LogLevel DEBUG3",
    "VisualHostKey yes",
    "EscapeChar none",
    "PermitLocalCommand yes\n  LocalCommand echo local",
    "ControlMaster auto\n  ControlPath {lab}/master\n  ControlPersist 1",
    "ExitOnForwardFailure yes\n  LocalForward 127.0.0.1:{port} localhost:1",
    "ExitOnForwardFailure yes\n  RemoteForward {port} localhost:1",
    "DynamicForward {port}",
    "ForwardAgent yes\n  ForwardX11 yes",
    "Tunnel yes",
]
"""Lines for sessions at a terminal, which would disturb a program that runs ssh."""


@pytest.mark.parametrize("line", ODD)
@pytest.mark.slow
@pytest.mark.parametrize("carrier", ["paramiko", "openssh"])
def test_lines_for_sessions_at_a_terminal(server: Server, lab: Path, line: str, carrier: str) -> None:
    """Neither our own login nor one that OpenSSH makes for us is disturbed."""
    config = write(lab, server.section("lab", line.format(port=server.port, lab=lab)))
    outcome = Dls().enter(Way(config, (server,)), "--carrier", carrier)
    assert outcome.entered and outcome.logins == (1,), outcome
