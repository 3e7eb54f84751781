"""Logins with the keys of an SSH agent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.agents import agent, other_keys, silent_agent
from tests.support.openssh import Server, allow, make_key, serving, write
from tests.support.ways import CARRIED, Client, Dls, OpenSsh, Way, parameters


@pytest.fixture(params=parameters(OpenSsh(), Dls(), CARRIED))
def client(request: pytest.FixtureRequest) -> Client:
    """OpenSSH's client, and ours by both of its carriers."""
    found: Client = request.param
    return found


def test_a_key_of_the_agent(client: Client, server: Server, lab: Path) -> None:
    """The agent that SSH_AUTH_SOCK names has the only key that the host takes."""
    config = write(lab, server.section("lab", key=False))
    with agent(lab, server.key) as socket:
        outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_identity_agent(client: Client, server: Server, lab: Path) -> None:
    """IdentityAgent names the agent, whatever SSH_AUTH_SOCK says: 1Password, Secretive and KeePassXC are set up so."""
    with agent(lab, server.key) as socket, silent_agent(lab) as other:
        config = write(lab, server.section("lab", f"IdentityAgent {socket}", key=False))
        outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(other)}))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_identity_agent_with_a_variable(client: Client, server: Server, lab: Path) -> None:
    """IdentityAgent may be a variable of the environment, or a path with blanks in quotes."""
    (lab / "an agent").mkdir()
    with agent(lab / "an agent", server.key) as socket:
        quoted = write(lab, server.section("lab", f'IdentityAgent "{socket}"', key=False))
        assert client.enter(Way(quoted, (server,), {"SSH_AUTH_SOCK": ""})).entered
        variable = write(lab, server.section("lab", "IdentityAgent $LAB_AGENT", key=False))
        assert client.enter(Way(variable, (server,), {"SSH_AUTH_SOCK": "", "LAB_AGENT": str(socket)})).entered


def test_identity_agent_none(client: Client, server: Server, lab: Path) -> None:
    """`IdentityAgent none` forbids the agent's keys, and they are not tried."""
    config = write(lab, server.section("lab", "IdentityAgent none", "PasswordAuthentication no", key=False))
    with agent(lab, server.key) as socket:
        outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
    assert not outcome.entered and outcome.logins == (0,), outcome


@pytest.mark.parametrize("kind", ["public", "encrypted"])
def test_a_key_file_that_stands_for_a_key_of_the_agent(client: Client, lab: Path, kind: str) -> None:
    """With IdentitiesOnly, a public or an encrypted key file chooses the agent's key: no passphrase is asked for."""
    with serving(lab / "server") as server:
        chosen = server.key.with_name("chosen")
        chosen.write_bytes(server.key.read_bytes())
        chosen.chmod(0o600)
        Path(f"{chosen}.pub").write_text(Path(f"{server.key}.pub").read_text())
        with agent(lab, *other_keys(lab, 8), chosen) as socket:
            if kind == "public":
                chosen.unlink()
            else:
                encrypt(chosen, "correct horse")
            named = f"{chosen}.pub" if kind == "public" else str(chosen)
            config = write(lab, server.section("lab", f"IdentityFile {named}", "IdentitiesOnly yes", key=False))
            outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}), answers={})
    assert outcome.entered and outcome.logins == (1,) and not outcome.asked, outcome


def test_identities_only_leaves_the_agents_other_keys_out(client: Client, server: Server, lab: Path) -> None:
    """With IdentitiesOnly, a key of the agent that no IdentityFile names is not tried, though the host takes it."""
    [other] = other_keys(lab, 1)
    lines = (f"IdentityFile {other}", "IdentitiesOnly yes")
    config = write(lab, server.section("lab", *lines, key=False))
    with agent(lab, server.key, other) as socket:
        outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
    assert not outcome.entered and outcome.logins == (0,), outcome


def test_the_named_key_is_tried_before_ten_others(client: Client, lab: Path) -> None:
    """A key of the agent that IdentityFile names comes first: after six refused keys the host would hang up."""
    with serving(lab / "server", "MaxAuthTries 3") as server:
        config = write(lab, server.section("lab", f"IdentityFile {server.key}.pub", key=False))
        with agent(lab, *other_keys(lab, 10), server.key) as socket:
            outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_too_many_keys_of_the_agent(client: Client, lab: Path) -> None:
    """Where no key is named and the agent has ten others before, the host hangs up, and that is said."""
    with serving(lab / "server", "MaxAuthTries 3") as server:
        config = write(lab, server.section("lab", key=False))
        with agent(lab, *other_keys(lab, 10), server.key) as socket:
            outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
        assert not outcome.entered and "too many" in outcome.said.lower(), outcome


def test_an_agent_that_declines(client: Client, lab: Path) -> None:
    """The agent has the key that the host takes, but its person declines to sign: the next key is tried."""
    with serving(lab / "server") as server:
        declined = make_key(lab / "declined")
        allow(server, declined)
        # Named, so that it comes first: of the agent's other keys ours come after the files that are named.
        text = server.section("lab", key=False) + f"  IdentityFile {declined}.pub\n  IdentityFile {server.key}\n"
        config = write(lab, text)
        with agent(lab, declined, confirm=True) as socket:
            outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
        assert outcome.entered and outcome.logins == (1,), outcome
        said = "the SSH agent declined to sign" if client.name == "dls" else "agent refused operation"
        assert said in outcome.said, outcome


def test_an_agent_that_declines_the_only_key(client: Client, server: Server, lab: Path) -> None:
    """Where nothing else is left, the login is refused; a lost connection is not claimed."""
    config = write(lab, server.section("lab", "PasswordAuthentication no", key=False))
    with agent(lab, server.key, confirm=True) as socket:
        outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
    assert not outcome.entered and outcome.exit_code in (13, 255), outcome
    assert "lost" not in outcome.said


@pytest.mark.timeout(90)
def test_an_agent_that_never_answers(server: Server, lab: Path) -> None:
    """The agent is left out after a while, and the key file gets in; ssh would wait for ever."""
    config = write(lab, server.section("lab"))
    with silent_agent(lab) as socket:
        outcome = Dls().enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
    assert outcome.entered and outcome.logins == (1,), outcome
    assert f"The SSH agent {socket} was passed over: it did not answer within 5 s." in outcome.said, outcome


@pytest.mark.parametrize("place", ["missing", "a file"])
def test_no_agent_at_the_socket(client: Client, server: Server, lab: Path, place: str) -> None:
    """SSH_AUTH_SOCK of an agent that has ended is as good as none."""
    path = lab / place
    if place == "a file":
        path.touch()
    outcome = client.enter(Way(write(lab, server.section("lab")), (server,), {"SSH_AUTH_SOCK": str(path)}))
    assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_kinds_of_keys_in_the_agent(client: Client, lab: Path, kind: str) -> None:
    """The agent signs with each kind of key."""
    key = make_key(lab / "key", kind)
    with serving(lab / "server") as server, agent(lab, key) as socket:
        allow(server, key)
        config = write(lab, server.section("lab", key=False))
        assert client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)})).entered


def test_two_keys_demanded(client: Client, lab: Path) -> None:
    """`AuthenticationMethods publickey,publickey` wants two different keys: one of the agent, one of a file."""
    with serving(lab / "server", "AuthenticationMethods publickey,publickey") as server:
        second = make_key(lab / "second")
        allow(server, second)
        config = write(lab, server.section("lab", key=False) + f"  IdentityFile {second}\n")
        with agent(lab, server.key) as socket:
            outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
        assert outcome.entered and outcome.logins == (1,), outcome


def encrypt(key: Path, passphrase: str) -> None:
    """Give a private key a passphrase."""
    command = ["ssh-keygen", "-q", "-p", "-P", "", "-N", passphrase, "-f", str(key)]
    subprocess.run(command, check=True, capture_output=True)
