"""The decision on a host key: which kinds are proposed, and what follows from what known_hosts says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import HostKeyError
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.host_keys import ALGORITHMS, KeyStatus, compare_key, order_algorithms
from dls.remote.ssh.known_hosts import Entry, Marker
from dls.remote.ssh.prompts import NewHostKey, NoPrompter
from dls.remote.ssh.target import Target
from tests.support.command_line import run_dls
from tests.support.host_keys import certify, make_key
from tests.support.logins import target_of
from tests.support.prompters import ScriptedPrompter

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def entry(key_type: str, key: bytes, marker: Marker = Marker.NONE) -> Entry:
    return Entry(Path("known_hosts"), 1, marker, "gpu", key_type, key)


def test_key_status() -> None:
    """A key that differs from a known one has changed; a revoked key is revoked whatever other keys are known."""
    entries = [entry("ssh-ed25519", b"known"), entry("ssh-ed25519", b"revoked", Marker.REVOKED)]
    assert compare_key(entries, b"known").status is KeyStatus.KNOWN
    assert compare_key(entries, b"revoked").status is KeyStatus.REVOKED
    assert compare_key([*entries, entry("ssh-ed25519", b"revoked")], b"revoked").status is KeyStatus.REVOKED
    assert compare_key(entries, b"x").status is KeyStatus.CHANGED
    assert compare_key(entries[1:], b"x").status is KeyStatus.NEW
    assert compare_key([entry("ssh-ed25519", b"x", Marker.AUTHORITY)], b"x").status is KeyStatus.NEW
    assert compare_key([], b"known").status is KeyStatus.NEW


def test_algorithms_that_can_be_checked_come_first() -> None:
    """Otherwise a host known by its RSA key would present its Ed25519 key, which would look changed."""
    assert order_algorithms([], ()) == ALGORITHMS
    assert order_algorithms([entry("ssh-rsa", b"")], ())[:4] == (
        "rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-512", "rsa-sha2-256"
    )  # fmt: skip
    assert order_algorithms([entry("ssh-rsa", b"", Marker.REVOKED)], ()) == ALGORITHMS


def test_certificates_come_first_where_an_authority_is_known() -> None:
    """With an authority, all kinds of certificates stand before the kinds of keys that are known."""
    known = [entry("ssh-ed25519", b"", Marker.AUTHORITY), entry("ecdsa-sha2-nistp256", b"")]
    assert order_algorithms(known, ())[:7] == (*ALGORITHMS[:6], "ecdsa-sha2-nistp256")


def test_algorithms_that_are_not_allowed_are_not_proposed() -> None:
    """HostKeyAlgorithms restricts and orders the list; what paramiko lacks is left out."""
    allowed = ("sk-ssh-ed25519@openssh.com", "rsa-sha2-512", "ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256")
    assert order_algorithms([], allowed) == ("rsa-sha2-512", "ssh-ed25519", "ecdsa-sha2-nistp256")
    assert order_algorithms([entry("ssh-ed25519", b"")], allowed)[0] == "ssh-ed25519"
    assert order_algorithms([], allowed[:1]) == ()


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("yes", True), ("YES", True), (" yes \t", True), ("yes please", True), ("SHA256:abC", True),
        ("no", False), ("No", False), ("", False), ("  ", False),
        ("y", None), ("n", None), ("SHA256:abc", None), ("abC", None), ("sha256:abC", None),
    ],
)  # fmt: skip
def test_answers_to_the_question(answer: str, accepted: bool | None) -> None:
    """`yes` or the fingerprint accepts a key, `no` or nothing refuses it, anything else is no answer: as in OpenSSH."""
    assert NewHostKey("gpu", "gpu", "ssh-ed25519", "SHA256:abC").read_answer(answer) is accepted


@pytest.fixture
def target(host: sshd.Server, tmp_path: Path) -> Target:
    """The real OpenSSH server as a target, with a known_hosts file that does not exist."""
    return replace(target_of(host), known_hosts=(tmp_path / "ssh" / "known_hosts",))


def test_an_accepted_new_key_is_added_to_known_hosts(target: Target) -> None:
    """A new key is shown as OpenSSH shows it, and is known in the next login."""
    person = ScriptedPrompter(accept_host_keys=True)
    Connection.open(target, person).close()
    [shown] = person.host_keys
    assert shown.other_names == ()
    assert shown.fingerprint.startswith("SHA256:") and shown.key_type == "ssh-ed25519"
    assert shown.known_hosts_name == f"[127.0.0.1]:{target.port}"
    file = target.known_hosts[0]
    assert file.read_text().startswith(f"[127.0.0.1]:{target.port} ssh-ed25519 ")
    again = Connection.open(target, NoPrompter())
    assert again.new_host_key == ""
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


def test_other_names_of_a_new_key_are_shown(target: Target, host: sshd.Server) -> None:
    """A key that known_hosts has under another name is told to be there, as OpenSSH does."""
    key = " ".join((host.config.parent / "known_hosts").read_text().split()[1:3])
    file = target.known_hosts[0]
    file.parent.mkdir()
    file.write_text(f"# a comment\ngpu.example.org,gpu {key}\n")
    person = ScriptedPrompter(accept_host_keys=True)
    Connection.open(target, person).close()
    assert person.host_keys[0].other_names == (f"{file}:2: gpu.example.org,gpu",)


def test_strict_checking_refuses_a_new_key(target: Target) -> None:
    """With StrictHostKeyChecking yes nobody is asked; the option of the command line is stronger."""
    strict = replace(target, strict_host_key_checking="yes")
    with pytest.raises(HostKeyError, match="StrictHostKeyChecking is yes") as caught:
        Connection.open(strict, ScriptedPrompter(accept_host_keys=True))
    assert "SHA256:" in caught.value.message and "--accept-new-host-key" in caught.value.hint
    connection = Connection.open(strict, NoPrompter(), accept_new_host_key=True)
    assert connection.new_host_key == "is now known"
    connection.close()


@pytest.mark.parametrize("strictness", ["accept-new", "no"])
def test_a_new_key_is_accepted_without_a_question(target: Target, strictness: str) -> None:
    """With StrictHostKeyChecking accept-new or no, a new key is added without a question."""
    connection = Connection.open(replace(target, strict_host_key_checking=strictness), NoPrompter())
    connection.close()
    assert connection.new_host_key == "is now known" and len(target.known_hosts[0].read_text().splitlines()) == 1


def test_names_are_hashed_where_that_is_wanted(target: Target) -> None:
    """With HashKnownHosts, `ssh-keygen` finds the host that nobody can read in the file, and so does the next login."""
    Connection.open(replace(target, hash_known_hosts=True), ScriptedPrompter(accept_host_keys=True)).close()
    file = target.known_hosts[0]
    assert file.read_text().startswith("|1|") and "127.0.0.1" not in file.read_text()
    subprocess.run(["ssh-keygen", "-F", target.known_hosts_name, "-f", str(file)], check=True, capture_output=True)
    Connection.open(target, NoPrompter()).close()


def test_what_became_of_a_new_key_is_told_as_it_was(target: Target, tmp_path: Path) -> None:
    """Nobody is told that a key is known which could not be written: to a device, or to a folder that is missing."""
    device = replace(target, known_hosts=(Path("/dev/null"),))
    missing = replace(target, known_hosts=(tmp_path / "no" / "such" / "file",))
    folder = replace(target, known_hosts=(tmp_path,))
    notes = []
    for each in (device, missing, folder):
        connection = Connection.open(each, ScriptedPrompter(accept_host_keys=True))
        connection.close()
        notes.append(connection.new_host_key)
    assert notes == [
        "is not kept, since it would go to /dev/null",
        f"could not be added to {tmp_path}/no/such/file (No such file or directory)",
        f"could not be added to {tmp_path} (Is a directory)",
    ]


def test_without_a_file_a_new_key_is_refused(target: Target) -> None:
    """With UserKnownHostsFile none, a new key is refused as OpenSSH does, and a known one accepted."""
    without = replace(target, known_hosts=())
    with pytest.raises(HostKeyError, match="UserKnownHostsFile is none"):
        Connection.open(without, ScriptedPrompter(accept_host_keys=True), accept_new_host_key=True)
    Connection.open(target, NoPrompter(), accept_new_host_key=True).close()
    Connection.open(replace(without, global_known_hosts=target.known_hosts), NoPrompter()).close()


@pytest.mark.parametrize("alias", ["*", "gpu,*", "gpu other", "!gpu", "#gpu", "@revoked"])
def test_a_name_with_another_meaning_is_not_written(target: Target, alias: str) -> None:
    """A name that would match other hosts, or that known_hosts can't hold, is never written there."""
    connection = Connection.open(replace(target, host_key_alias=alias), NoPrompter(), accept_new_host_key=True)
    connection.close()
    assert "can't hold this name" in connection.new_host_key and not target.known_hosts[0].exists()


def test_a_changed_key_is_refused_whatever_the_configuration_says(target: Target) -> None:
    """With StrictHostKeyChecking no, `ssh` would go on without forwarding; dls does nothing else."""
    file = target.known_hosts[0]
    file.parent.mkdir()
    file.write_text(f"{target.known_hosts_name} {OTHER}\n")
    with pytest.raises(HostKeyError, match="has changed"):
        Connection.open(replace(target, strict_host_key_checking="no"), NoPrompter())
    assert len(file.read_text().splitlines()) == 1


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[tuple[Target, str]]:
    """A host whose certificate names another host, and the authority's key."""
    authority = make_key(tmp_path / "ca")
    make_key(tmp_path / "key")
    certificate = certify(tmp_path / "ca", tmp_path / "key", principals="other.org")
    (tmp_path / "sshd").mkdir()
    options = f"HostKey {tmp_path}/key\nHostCertificate {certificate}\n"
    with sshd.running(tmp_path / "sshd", options=options) as server:
        yield replace(target_of(server), known_hosts=(tmp_path / "known_hosts",)), authority


def test_a_certificate_of_no_use_is_told(certified: tuple[Target, str]) -> None:
    """Why a certificate did not vouch for the host is told before the question, and where nothing is asked."""
    target, authority = certified
    file = target.known_hosts[0]
    file.write_text(f"@cert-authority * {authority}\n")
    person = ScriptedPrompter(accept_host_keys=False)
    with pytest.raises(HostKeyError, match="not accepted"):
        Connection.open(target, person)
    assert person.told == [f"{target.known_hosts_name}: Its certificate is for other.org."]
    with pytest.raises(HostKeyError, match=r"Its certificate is for other\.org"):
        Connection.open(replace(target, strict_host_key_checking="yes"), person)
    file.write_text(f"@cert-authority * {authority}\n{target.known_hosts_name} {OTHER}\n")
    with pytest.raises(HostKeyError, match=r"has changed.* Its certificate is for other\.org"):
        Connection.open(target, person)
    file.write_text(f"@cert-authority * {OTHER}\n")
    with pytest.raises(HostKeyError, match="Its certificate is of an authority that known_hosts does not name"):
        Connection.open(replace(target, strict_host_key_checking="yes"), person)


def test_a_certificate_for_the_alias(certified: tuple[Target, str]) -> None:
    """A certificate vouches for the name in HostKeyAlias, nothing is asked, and nothing is written."""
    target, authority = certified
    text = f"@cert-authority *.org {authority}\n"
    target.known_hosts[0].write_text(text)
    Connection.open(replace(target, host_key_alias="other.org"), NoPrompter()).close()
    assert target.known_hosts[0].read_text() == text
    target.known_hosts[0].write_text(f"{text}@revoked * {authority}\n")
    with pytest.raises(HostKeyError, match=r"authority that signed the certificate of other\.org has been revoked"):
        Connection.open(replace(target, host_key_alias="other.org"), NoPrompter(), accept_new_host_key=True)


def test_a_jump_hosts_new_key_is_told(host: sshd.Server, tmp_path: Path) -> None:
    """What became of a jump host's new key is told as well, with its name."""
    file, config = tmp_path / "known", tmp_path / "config"
    text = re.sub(r"UserKnownHostsFile .*", f"UserKnownHostsFile {file}", host.config.read_text())
    _, _, settings = text.partition("\n")
    config.write_text(f"{text}  HostKeyAlias behind\n  ProxyJump jump\nHost jump\n{settings}  HostKeyAlias jump\n")
    done = run_dls("stop", "-F", str(config), "--accept-new-host-key", "--remote-dir", str(tmp_path), "dls-demo")
    assert done.returncode == 0, done.stderr
    assert "The host key of jump is now known." in done.stderr and "its host key is now known" in done.stderr
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["jump", "behind"]
