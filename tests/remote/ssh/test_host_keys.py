"""Known, new, changed, revoked."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from dls.demo import sshd
from dls.errors import HostKeyError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.host_keys import Verdict, judge, known_keys, preferred_kinds
from dls.remote.ssh.login import LoginOptions, resolve_hops
from dls.remote.ssh.prompts import NewHostKey, NoPrompter
from dls.remote.ssh.target import Target

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def known(tmp_path: Path, text: str, host: str = "gpu", port: int = 22) -> list[tuple[str, bool]]:
    file = tmp_path / "known_hosts"
    file.write_text(text)
    target = Target(host, host, port, "ann", known_hosts=(file, tmp_path / "missing"))
    return [(entry.kind, entry.revoked) for entry in known_keys(target)]


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
    """Lists, wildcards, negation, ports, hashed names."""
    assert bool(known(tmp_path, f"{names} {KEY}\n", host, port)) is found


def test_other_lines_are_passed_over(tmp_path: Path) -> None:
    """Comments, certificate authorities, lines that make no sense."""
    text = f"# gpu {KEY}\n\n@cert-authority gpu {KEY}\ngpu ssh-ed25519 not-base64!\ngpu\n"
    text += f"@revoked gpu {OTHER}\ngpu {KEY} comment\n"
    assert known(tmp_path, text) == [("ssh-ed25519", True), ("ssh-ed25519", False)]


def test_verdicts(tmp_path: Path) -> None:
    """A key that differs from a known one has changed; a revoked one is refused whatever else is known."""
    file = tmp_path / "known_hosts"
    file.write_text(f"gpu {KEY}\n@revoked gpu {OTHER}\n")
    entries = known_keys(Target("gpu", "gpu", 22, "ann", known_hosts=(file,)))
    same, revoked = entries[0].key, entries[1].key
    assert judge(entries, "ssh-ed25519", same) is Verdict.KNOWN
    assert judge(entries, "ssh-ed25519", revoked) is Verdict.REVOKED
    assert judge(entries, "ssh-ed25519", b"x") is Verdict.CHANGED
    assert judge(entries, "ssh-rsa", b"x") is Verdict.CHANGED
    assert judge([], "ssh-ed25519", same) is Verdict.NEW


def test_known_kinds_are_asked_for_first(tmp_path: Path) -> None:
    """Else a host known by its RSA key would look changed by showing its Ed25519 key."""
    file = tmp_path / "known_hosts"
    file.write_text(f"gpu {KEY}\n")
    entries = known_keys(Target("gpu", "gpu", 22, "ann", known_hosts=(file,)))
    assert preferred_kinds(entries, ("rsa-sha2-512", "ssh-ed25519"))[0] == "ssh-ed25519"
    assert preferred_kinds([], ("rsa-sha2-512", "ssh-ed25519"))[0] == "rsa-sha2-512"


class Answers(NoPrompter):
    """A person who says yes or no, and remembers what was shown."""

    def __init__(self, yes: bool) -> None:
        self.yes = yes
        self.shown: list[NewHostKey] = []

    def accept_host_key(self, key: NewHostKey) -> bool:
        self.shown.append(key)
        return self.yes


@pytest.fixture
def target(host: sshd.Server, tmp_path: Path) -> Target:
    """The real server, with an empty known_hosts."""
    [found] = resolve_hops("dls-demo", LoginOptions(ssh_config=host.config))
    return Target(**{**found.__dict__, "known_hosts": (tmp_path / "ssh" / "known_hosts",)})


def test_a_new_key_is_shown_and_written_down(target: Target) -> None:
    """As OpenSSH shows it; asked about once, known after that."""
    person = Answers(True)
    Connection.open(target, person).close()
    [shown] = person.shown
    assert shown.fingerprint.startswith("SHA256:") and shown.kind == "ssh-ed25519"
    assert shown.known_as == f"[127.0.0.1]:{target.port}"
    file = target.known_hosts[0]
    assert file.read_text().startswith(f"[127.0.0.1]:{target.port} ssh-ed25519 ")
    again = Connection.open(target, NoPrompter())
    assert not again.new_host_key
    again.close()


def test_a_new_key_that_is_not_accepted(target: Target) -> None:
    """No login; without a terminal the option is named; nothing is written down."""
    with pytest.raises(HostKeyError, match="not accepted"):
        Connection.open(target, Answers(False))
    with pytest.raises(HostKeyError) as caught:
        Connection.open(target, NoPrompter())
    assert "--accept-new-host-key" in caught.value.hint
    assert not target.known_hosts[0].exists()
    Connection.open(target, NoPrompter(), accept_new_host_key=True).close()


def test_a_changed_key_is_refused_even_if_new_ones_are_accepted(target: Target) -> None:
    """With the line to remove, and the file as it was; a last line without a newline is kept whole."""
    file = target.known_hosts[0]
    file.parent.mkdir()
    file.write_text(f"other {KEY}\n{target.known_as} {OTHER}")
    with pytest.raises(HostKeyError, match=r"has changed.*line 2") as caught:
        Connection.open(target, Answers(True), accept_new_host_key=True)
    assert "ssh-keygen" in caught.value.hint and target.known_as in caught.value.hint
    file.write_text(f"other {KEY}")
    Connection.open(target, Answers(True)).close()
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["other", target.known_as]
