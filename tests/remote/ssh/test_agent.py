"""The SSH agent: real ones, one whose person declines, one that is restricted to a host, one that never answers."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import LoginError
from dls.remote.ssh.agent import Agent, AgentError, agent_places
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.target import Target
from tests.support.agents import is_listening
from tests.support.logins import target_of
from tests.support.processes import until
from tests.support.prompters import ScriptedPrompter


@pytest.fixture
def agent(short_folder: Path) -> Iterator[Path]:
    """A real ssh-agent; what it asks its person is answered with no."""
    path = short_folder / "agent"
    no = {"SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], env={**os.environ, **no}, stdout=subprocess.DEVNULL
    )
    until(lambda: is_listening(path))
    yield path
    process.terminate()
    process.wait()


@pytest.fixture
def server(short_folder: Path) -> Iterator[sshd.Server]:
    """A server that takes one key, which is not in the place where its configuration says."""
    with sshd.running(short_folder) as running:
        (short_folder / "id_ed25519").rename(short_folder / "moved")
        yield running


def add(agent: Path, key: Path, *options: str) -> None:
    command = ["ssh-add", "-q", *options, str(key)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "SSH_AUTH_SOCK": str(agent)})


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True)
    return path


def with_agent(server: sshd.Server, agent: Path) -> Target:
    return replace(target_of(server), identity_agent=str(agent), identities=(), identities_only=False)


def log_in(target: Target, person: ScriptedPrompter) -> str:
    connection = Connection.open(target, person)
    connection.close()
    return connection.credential


def test_where_agents_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """IdentityAgent wins over SSH_AUTH_SOCK, and `none` means none."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    assert agent_places("SSH_AUTH_SOCK") == ["/run/agent"]
    assert agent_places("/home/ann/.1password/agent.sock") == ["/home/ann/.1password/agent.sock"]
    assert agent_places("none") == []


def test_a_key_of_the_agent_at_identity_agent(server: sshd.Server, agent: Path, short_folder: Path) -> None:
    """The agent that IdentityAgent names signs, and the credential says so."""
    add(agent, short_folder / "moved")
    assert "of the SSH agent" in log_in(with_agent(server, agent), ScriptedPrompter())


def test_an_agent_that_declines_is_passed_over(server: sshd.Server, agent: Path, short_folder: Path) -> None:
    """The next key is tried, and the person is told; a key that the host does not want is not asked for at all."""
    unwanted, wanted = make_key(short_folder / "unwanted"), make_key(short_folder / "wanted")
    with (short_folder / "authorized_keys").open("a") as file:
        file.write(Path(f"{wanted}.pub").read_text())
    add(agent, unwanted, "-c")
    add(agent, wanted, "-c")
    person = ScriptedPrompter()
    target = replace(with_agent(server, agent), identities=(short_folder / "moved",))
    assert log_in(target, person) == "the key moved"
    assert len(person.told) == 1 and "wanted of the SSH agent was passed over" in person.told[0]
    with pytest.raises(LoginError) as caught:
        log_in(replace(target, identities=()), person)
    rows = [" ".join(line.split()) for line in caught.value.detail.splitlines()]
    assert rows[1] == "the key unwanted of the SSH agent not accepted"
    assert rows[2] == "the key wanted of the SSH agent the SSH agent declined to sign"
    assert rows[3:] == ["The host accepts: publickey"]


def test_a_declined_key_whose_file_is_there(server: sshd.Server, agent: Path, short_folder: Path) -> None:
    """Where the agent declines and the file needs no passphrase, the file signs."""
    add(agent, short_folder / "moved", "-c")
    target = replace(with_agent(server, agent), identities=(short_folder / "moved",))
    assert log_in(target, ScriptedPrompter()) == "the key moved of the SSH agent"


def test_an_agents_key_that_is_restricted_to_the_host(server: sshd.Server, agent: Path, short_folder: Path) -> None:
    """A key that ssh-add restricts to a host (-h) is used for that host: the agent is told which one it is."""
    known = short_folder / "known_hosts"
    where = f"[127.0.0.1]:{server.port}"
    add(agent, short_folder / "moved", "-h", where, "-H", str(known))
    target = with_agent(server, agent)
    assert "of the SSH agent" in log_in(target, ScriptedPrompter())
    other = short_folder / "other_host"
    make_key(short_folder / "x")
    other.write_text(f"{where} {(short_folder / 'x.pub').read_text()}")
    subprocess.run(["ssh-add", "-q", "-D"], check=True, env={**os.environ, "SSH_AUTH_SOCK": str(agent)})
    add(agent, short_folder / "moved", "-h", where, "-H", str(other))
    with pytest.raises(LoginError):
        log_in(target, ScriptedPrompter())


@pytest.mark.parametrize("accepts", [True, False], ids=["accepts", "queue full"])
def test_an_agent_that_never_answers(host: sshd.Server, target: Target, short_folder: Path, accepts: bool) -> None:
    """It is passed over after some seconds, the person is told, and the key file gets in."""
    path = short_folder / "silent"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(16 if accepts else 0)
        if not accepts:
            waiting.connect(str(path))  # takes the only place
        person = ScriptedPrompter()
        assert log_in(replace(target, identity_agent=str(path)), person) == "the key id_ed25519"
    assert len(person.told) == 1 and str(path) in person.told[0] and "was passed over" in person.told[0]


def test_an_agent_that_makes_no_sense(short_folder: Path) -> None:
    """An answer that is cut, too long, or no list of keys is an error with a reason."""
    for answer in (b"", b"\0\0\0\5\x0c\0\0\0\x09", b"\xff\xff\xff\xff", b"\0\0\0\1\5"):
        path = short_folder / f"odd{len(answer)}"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            agent = Agent(str(path))
            agent.connect()
            peer, _ = listener.accept()
            peer.sendall(answer)
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(AgentError):
                agent.keys()
            agent.close()
            peer.close()


def test_a_socket_that_is_gone(target: Target, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSH_AUTH_SOCK of an agent that has ended is as good as none; a missing IdentityAgent is told."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(short_folder / "gone"))
    person = ScriptedPrompter()
    log_in(target, person)
    assert person.told == []
    log_in(replace(target, identity_agent=str(short_folder / "gone")), person)
    assert "can't be reached: No such file" in person.told[0]
