"""Host keys that are known, new, changed or revoked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from dls.demo import sshd
from dls.errors import HostKeyError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.host_keys import KeyStatus, key_status, known_keys, order_key_types
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.target import Target
from tests.support.logins import target_of
from tests.support.prompters import ScriptedPrompter

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def known(tmp_path: Path, text: str, host: str = "gpu", port: int = 22) -> list[tuple[str, bool]]:
    file = tmp_path / "known_hosts"
    file.write_text(text)
    target = Target(host, host, port, "ann", known_hosts=(file, tmp_path / "missing"))
    return [(entry.key_type, entry.revoked) for entry in known_keys(target)]


def hashed(name: str) -> str:
    return paramiko.HostKeys.hash_host(name)


@pytest.mark.parametrize(
    ("names", "host", "port", "found"),
    [
        ("gpu", "gpu", 22, True),
        ("a,gpu,b", "gpu", 22, True),
        ("GPU", "gpu", 22, True),
        ("*.org", "gpu.org", 22, True),
        ("*.org,!gpu.org", "gpu.org", 22, False),
        ("gp?", "gpu", 22, True),
        ("gpu", "gpu", 2222, False),
        ("[gpu]:2222", "gpu", 2222, True),
        ("[gpu]:2222", "gpu", 22, False),
        (hashed("gpu"), "gpu", 22, True),
        (hashed("gpu"), "cpu", 22, False),
    ],
)
def test_names_match_as_in_sshd_8(tmp_path: Path, names: str, host: str, port: int, found: bool) -> None:
    """Lists, wildcards, negation, ports and hashed names match as sshd(8) defines."""
    assert bool(known(tmp_path, f"{names} {KEY}\n", host, port)) is found


def test_other_lines_are_ignored(tmp_path: Path) -> None:
    """Comments, certificate authorities and invalid lines are ignored."""
    text = f"# gpu {KEY}\n\n@cert-authority gpu {KEY}\ngpu ssh-ed25519 not-base64!\ngpu\n"
    text += f"@revoked gpu {OTHER}\ngpu {KEY} comment\n"
    assert known(tmp_path, text) == [("ssh-ed25519", True), ("ssh-ed25519", False)]


def test_key_status(tmp_path: Path) -> None:
    """A key that differs from a known one has changed; a revoked key is revoked whatever other keys are known."""
    file = tmp_path / "known_hosts"
    file.write_text(f"gpu {KEY}\n@revoked gpu {OTHER}\n")
    entries = known_keys(Target("gpu", "gpu", 22, "ann", known_hosts=(file,)))
    same, revoked = entries[0].key, entries[1].key
    assert key_status(entries, same) is KeyStatus.KNOWN
    assert key_status(entries, revoked) is KeyStatus.REVOKED
    assert key_status(entries, b"x") is KeyStatus.CHANGED
    assert key_status([], same) is KeyStatus.NEW


def test_known_key_types_come_first(tmp_path: Path) -> None:
    """Otherwise a host known by its RSA key would present its Ed25519 key, which would look changed."""
    file = tmp_path / "known_hosts"
    file.write_text(f"gpu {KEY}\n")
    entries = known_keys(Target("gpu", "gpu", 22, "ann", known_hosts=(file,)))
    assert order_key_types(entries, ("rsa-sha2-512", "ssh-ed25519"))[0] == "ssh-ed25519"
    assert order_key_types([], ("rsa-sha2-512", "ssh-ed25519"))[0] == "rsa-sha2-512"


@pytest.fixture
def target(host: sshd.Server, tmp_path: Path) -> Target:
    """The real OpenSSH server as a target, with a known_hosts file that does not exist."""
    return replace(target_of(host), known_hosts=(tmp_path / "ssh" / "known_hosts",))


def test_an_accepted_new_key_is_added_to_known_hosts(target: Target) -> None:
    """A new key is shown as OpenSSH shows it, and is known in the next login."""
    person = ScriptedPrompter(accept_host_keys=True)
    Connection.open(target, person).close()
    [shown] = person.host_keys
    assert shown.fingerprint.startswith("SHA256:") and shown.key_type == "ssh-ed25519"
    assert shown.known_hosts_name == f"[127.0.0.1]:{target.port}"
    file = target.known_hosts[0]
    assert file.read_text().startswith(f"[127.0.0.1]:{target.port} ssh-ed25519 ")
    again = Connection.open(target, NoPrompter())
    assert not again.new_host_key
    again.close()


def test_a_new_key_that_is_not_accepted(target: Target) -> None:
    """The login ends and known_hosts is unchanged; without a terminal the hint names the option."""
    with pytest.raises(HostKeyError, match="not accepted"):
        Connection.open(target, ScriptedPrompter(accept_host_keys=False))
    with pytest.raises(HostKeyError) as caught:
        Connection.open(target, NoPrompter())
    assert "--accept-new-host-key" in caught.value.hint
    assert not target.known_hosts[0].exists()
    Connection.open(target, NoPrompter(), accept_new_host_key=True).close()


def test_a_changed_key_is_refused_even_if_new_ones_are_accepted(target: Target) -> None:
    """The error names the line to remove; a key is appended correctly to a file whose last line has no newline."""
    file = target.known_hosts[0]
    file.parent.mkdir()
    file.write_text(f"other {KEY}\n{target.known_hosts_name} {OTHER}")
    with pytest.raises(HostKeyError, match=r"has changed.*line 2") as caught:
        Connection.open(target, ScriptedPrompter(accept_host_keys=True), accept_new_host_key=True)
    assert "ssh-keygen" in caught.value.hint and target.known_hosts_name in caught.value.hint
    file.write_text(f"other {KEY}")
    Connection.open(target, ScriptedPrompter(accept_host_keys=True)).close()
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["other", target.known_hosts_name]
