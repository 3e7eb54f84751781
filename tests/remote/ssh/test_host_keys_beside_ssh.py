"""Host keys beside the real `ssh`: for the same known_hosts, both accept the host or both refuse it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import HostKeyError
from dls.remote.ssh.config import resolve_hops
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.known_hosts import hash_name
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.target import Target
from tests.support.host_keys import certify, make_key

pytestmark = [
    pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed"),
    pytest.mark.slow,  # some 400 logins
]


@dataclass(frozen=True)
class Lab:
    """A real OpenSSH server with several host keys, and the texts that a known_hosts file is made of."""

    server: sshd.Server
    names: dict[str, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The keys of a host and of an authority, and further ones."""
    folder = tmp_path_factory.mktemp("keys")
    for name, *kind in (("ed",), ("ecdsa", "ecdsa"), ("rsa", "rsa", "-b", "2048"), ("ca",), ("otherca",), ("other",)):
        make_key(folder / name, *kind)
    for name in ("otherrsa", "rsaca"):
        make_key(folder / name, "rsa", "-b", "2048")
    return folder


@contextlib.contextmanager
def run_lab(folder: Path, at: Path, options: str) -> Iterator[Lab]:
    """Run a server with these options in the folder `at`; `folder` has the keys that texts may name."""
    at.mkdir()
    with sshd.running(at, options=options) as server:
        keys = {path.stem: " ".join(path.read_text().split()[:2]) for path in folder.glob("*.pub")}
        here = f"[127.0.0.1]:{server.port}"
        yield Lab(server, {**keys, "here": here, "hashed": hash_name(here), "hashedbare": hash_name("127.0.0.1")})


@pytest.fixture(scope="module")
def plain(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A server with three host keys and no certificate."""
    options = "".join(f"HostKey {folder}/{name}\n" for name in ("ed", "ecdsa", "rsa"))
    with run_lab(folder, tmp_path_factory.mktemp("sshd") / "plain", options) as lab:
        yield lab


CASES = {
    "nothing is known": "",
    "known": "{here} {ed}",
    "known by a second kind": "{here} {rsa}",
    "known by a third kind": "{here} {ecdsa}",
    "known, and another of the same kind": "{here} {other}\n{here} {ed}",
    "changed": "{here} {other}",
    "changed, of another kind": "{here} {otherrsa}",
    "hashed": "{hashed} {ed}",
    "hashed and changed": "{hashed} {other}",
    "hashed without the port": "{hashedbare} {rsa}",
    "known without the port": "127.0.0.1 {ed}",
    "changed without the port": "127.0.0.1 {other}",
    "changed with the port, known without": "127.0.0.1 {ed}\n{here} {other}",
    "a pattern": "*.0.0.1,[127.0.0.?]:* {ed}",
    "a pattern without brackets": "127.* {ed}",
    "all hosts": "* {ed}",
    "all hosts, and another key of this one": "* {other}\n{here} {ed}",
    "a pattern that leaves this one out": "*,!{here} {ed}",
    "a pattern that leaves it out without the port": "*,!127.0.0.1 {ed}",
    "another port": "[127.0.0.1]:1 {other}",
    "revoked": "@revoked {here} {ed}",
    "revoked, for all": "@revoked * {ed}",
    "revoked, and known": "{here} {ed}\n@revoked * {ed}",
    "another key is revoked": "@revoked * {other}\n{here} {ed}",
    "only another key is revoked": "@revoked * {other}",
    "the first kind is revoked, the second known": "@revoked * {ed}\n{here} {rsa}",
    "an authority, and no certificate": "@cert-authority * {ca}",
    "the key as an authority": "@cert-authority * {ed}",
    "a marker that nobody knows": "@trusted {here} {ed}",
    "two markers": "@revoked @cert-authority {here} {ed}",
    "a comment": "#{here} {ed}",
    "a comment behind": "{here} {ed} # of words",
    "tabs": "\t{here}\t{ed}\t",
    "line ends of Windows": "{here} {ed}\r\n",
    "cut off": "{here} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+",
    "cut off, then whole": "{here} ssh-ed25519 AAAA\n{here} {ed}",
    "a kind that does not fit": "{here} ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti",
    "an unknown kind": "{here} ssh-new AAAAB3NzaC1uZXc=",
    "garbage": "\x00\x01\x02\n\xff\xfe\n{here} {ed}",
}
"""Texts of known_hosts files; each is tried with three values of StrictHostKeyChecking."""
SAFER = {"revoked", "revoked, for all", "revoked, and known"}
"""Where `ssh` goes on with StrictHostKeyChecking off, and dls does not: sshd(8) says that it never does."""


def target_with(lab: Lab, *options: str) -> Target:
    return resolve_hops("dls-demo", LoginOptions(ssh_config=lab.server.config, ssh_options=options))[-1]


def ssh_accepts(lab: Lab, *options: str) -> bool:
    """Forward with the real `ssh`, which does not do it for a key that has changed, whatever the configuration says.

    A refusal for another reason than the host key fails the test.
    """
    words = [word for option in options for word in ("-o", option)]
    forward = ["-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"]
    forward += ["-L", f"{lab.server.config.parent}/forward:/nowhere"]
    command = ["ssh", "-F", str(lab.server.config), "-o", "BatchMode=yes", *forward, *words, "dls-demo", "true"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    reasons = ("Host key verification failed", "due to host key check failure")
    assert done.returncode == 0 or any(reason in done.stderr for reason in reasons), done.stderr
    return done.returncode == 0


def dls_accepts(lab: Lab, *options: str) -> bool:
    """Log in with dls."""
    try:
        Connection.open(target_with(lab, *options), NoPrompter()).close()
    except HostKeyError:
        return False
    return True


def compare(
    lab: Lab,
    text: str,
    tmp_path: Path,
    *options: str,
    values: tuple[str, ...] = ("yes", "accept-new", "no"),
    beside_ssh: bool = True,
) -> list[bool]:
    """Return our verdicts for values of StrictHostKeyChecking; `ssh` must give the same, and leave the same file."""
    verdicts = []
    for strictness in values:
        theirs, ours = tmp_path / f"ssh-{strictness}", tmp_path / f"dls-{strictness}"
        for file in (theirs, ours):
            file.write_bytes(text.encode("latin-1"))
        given = (f"StrictHostKeyChecking={strictness}", *options)
        verdicts.append(dls_accepts(lab, f"UserKnownHostsFile={ours}", *given))
        if beside_ssh:
            assert (strictness, ssh_accepts(lab, f"UserKnownHostsFile={theirs}", *given)) == (strictness, verdicts[-1])
            assert theirs.read_bytes() == ours.read_bytes()
    return verdicts


@pytest.mark.parametrize("name", [name for name in CASES if name not in SAFER])
def test_known_hosts_means_what_it_means_to_ssh(name: str, plain: Lab, tmp_path: Path) -> None:
    """For each text and each StrictHostKeyChecking, `ssh` and dls give the same verdict and add a line or none."""
    compare(plain, CASES[name].format(**plain.names) + "\n", tmp_path, "GlobalKnownHostsFile=/dev/null")


@pytest.mark.parametrize("name", sorted(SAFER))
def test_a_revoked_key_is_never_accepted(name: str, plain: Lab, tmp_path: Path) -> None:
    """A revoked key is refused by both; with StrictHostKeyChecking off, `ssh` goes on where dls does not."""
    text = CASES[name].format(**plain.names) + "\n"
    assert compare(plain, text, tmp_path, values=("yes", "accept-new")) == [False, False]
    file = tmp_path / "known_hosts"
    for written in (text, f"@revoked 127.0.0.1 {plain.names['ed']}\n"):
        file.write_text(written)
        assert not dls_accepts(plain, "StrictHostKeyChecking=no", f"UserKnownHostsFile={file}")
        assert file.read_text() == written


@pytest.mark.parametrize("alias", ["gpu", "GPU.org", "[gpu]:22"])
def test_an_alias_is_looked_up_in_place_of_name_and_port(alias: str, plain: Lab, tmp_path: Path) -> None:
    """HostKeyAlias is looked up without a port, and the host's own name is not looked up then."""
    option = f"HostKeyAlias={alias}"
    assert compare(plain, f"{alias} {plain.names['ed']}\n", tmp_path, option, values=("yes",)) == [True]
    assert compare(plain, "{here} {ed}\n".format(**plain.names), tmp_path, option, values=("yes",)) == [False]


def test_all_files_count(plain: Lab, tmp_path: Path) -> None:
    """All user's and global files count together, with quotes and tokens in their paths, and @revoked in each."""
    spaced, second, third, last = (tmp_path / name for name in ("known hosts", "second-127.0.0.1", "third", "last"))
    options = (
        f'UserKnownHostsFile="{spaced}" "{tmp_path}/second-%h"',
        f"GlobalKnownHostsFile={third} {last}",
        "StrictHostKeyChecking=yes",
    )
    assert [ssh_accepts(plain, *options), dls_accepts(plain, *options)] == [False, False]
    for file in (spaced, second, third, last):
        file.write_text("{here} {rsa}\n".format(**plain.names))
        assert [ssh_accepts(plain, *options), dls_accepts(plain, *options)] == [True, True], file
        for revoking in {spaced, second, third, last} - {file}:
            revoking.write_text("@revoked * {rsa}\n".format(**plain.names))
            assert [ssh_accepts(plain, *options), dls_accepts(plain, *options)] == [False, False], (file, revoking)
            revoking.unlink()
        file.unlink()


@pytest.mark.parametrize(
    ("allowed", "known"),
    [
        ("ecdsa-sha2-nistp256", ""),
        ("ecdsa-sha2-nistp256", "{here} {ed}"),
        ("rsa-sha2-512", "{here} {rsa}"),
        ("rsa-sha2-256,ecdsa-sha2-nistp256", ""),
        ("+ssh-rsa", "{here} {rsa}"),
        ("-ssh-ed25519*", ""),
        ("^ecdsa-sha2-nistp256", ""),
    ],
)
def test_the_algorithms_that_are_allowed(allowed: str, known: str, plain: Lab, tmp_path: Path) -> None:
    """HostKeyAlgorithms restricts and orders what is proposed: the host presents the same key to both."""
    compare(plain, known.format(**plain.names) + "\n", tmp_path, f"HostKeyAlgorithms={allowed}")


@dataclass(frozen=True)
class Case:
    """A host with a certificate, and what known_hosts says."""

    text: str
    """The text of known_hosts."""
    accepted: tuple[bool, bool]
    """The verdicts with StrictHostKeyChecking yes, and accept-new."""
    principals: str = "127.0.0.1"
    certify: tuple[str, ...] = ()
    """Further options of `ssh-keygen -s`."""
    is_users: bool = False
    key: str = "ed"
    authority: str = "ca"
    options: tuple[str, ...] = ()
    """Options of the client."""
    server: str = ""
    """Further lines of sshd_config."""
    is_new: bool = False
    """Whether OpenSSH up to 10.2 has another verdict than we and the versions after it."""


YES, NEW, NO = (True, True), (False, True), (False, False)
PAST = ("-V", "20200101000000Z:20200102000000Z")
CERTIFICATES = {
    "trusted": Case("@cert-authority * {ca}", YES),
    "trusted, without a port": Case("@cert-authority 127.0.0.1 {ca}", YES),
    "trusted, with a port": Case("@cert-authority {here} {ca}", YES),
    "trusted, hashed": Case("@cert-authority {hashed} {ca}", YES),
    "trusted, for another port": Case("@cert-authority [127.0.0.1]:1 {ca}", NEW),
    "trusted, not for this host": Case("@cert-authority *,!{here},!127.0.0.1 {ca}\n@cert-authority *.org {ca}", NEW),
    "trusted, among others": Case("@cert-authority * {otherca}\n{here} {other}\n@cert-authority * {ca}", YES),
    "nothing is known": Case("", NEW),
    "the plain key is known": Case("{here} {ed}", YES),
    "the plain key is known, and the authority": Case("@cert-authority * {ca}\n{here} {ed}", YES),
    "the plain key has changed": Case("{here} {other}", NO),
    "the plain key has changed, and the authority is known": Case("@cert-authority * {ca}\n{here} {other}", YES),
    "changed, and the authority is known without a port": Case("@cert-authority 127.* {ca}\n{here} {other}", YES),
    "the authority's key is listed as the host's": Case("{here} {ca}", NO),
    "another authority": Case("@cert-authority * {otherca}", NEW),
    "another authority, and the plain key": Case("@cert-authority * {otherca}\n{here} {ed}", YES),
    "another authority, known by another kind": Case("@cert-authority * {otherca}\n{here} {rsa}", NO),
    "the authority is revoked": Case("@cert-authority * {ca}\n@revoked * {ca}", NO),
    "the authority is revoked, the plain key known": Case("@revoked * {ca}\n{here} {ed}", NO),
    "the host's key is revoked": Case("@cert-authority * {ca}\n@revoked * {ed}", NO),
    "a pattern in it": Case("@cert-authority * {ca}", YES, principals="10.*,127.0.?.1", is_new=True),
    "for another host": Case("@cert-authority * {ca}", NEW, principals="gpu"),
    "for another host, the plain key is known": Case("@cert-authority * {ca}\n{here} {ed}", YES, principals="gpu"),
    "for another host, the plain key has changed": Case("@cert-authority * {ca}\n{here} {other}", NO, principals="gpu"),
    "for the name with the port": Case("@cert-authority * {ca}", NEW, principals="[127.0.0.1]:*"),
    "for no host": Case("@cert-authority * {ca}", NEW, principals="", is_new=True),
    "expired": Case("@cert-authority * {ca}", NEW, certify=PAST),
    "expired, the plain key is known": Case("@cert-authority * {ca}\n{here} {ed}", YES, certify=PAST),
    "not valid yet": Case("@cert-authority * {ca}", NEW, certify=("-V", "+52w:+53w")),
    "for users": Case("@cert-authority * {ca}", NEW, is_users=True),
    "with an unknown option": Case("@cert-authority * {ca}", NEW, certify=("-O", "critical:x@y=z")),
    "signed with SHA-1": Case("@cert-authority * {rsaca}", NEW, authority="rsaca", certify=("-t", "ssh-rsa")),
    "an RSA authority": Case("@cert-authority * {rsaca}", YES, authority="rsaca"),
    "an ECDSA key": Case("@cert-authority * {ca}", YES, key="ecdsa"),
    "an RSA key": Case("@cert-authority * {ca}", YES, key="rsa"),
    "an alias": Case("@cert-authority gpu {ca}", YES, principals="gpu", options=("HostKeyAlias=GPU",)),
    "an alias that it does not name": Case("@cert-authority gpu {ca}", NEW, options=("HostKeyAlias=gpu",)),
    "only certificates are presented": Case(
        "{here} {ed}", YES, server="HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com\n"
    ),
    "no certificates are allowed": Case(
        "@cert-authority * {ca}\n{here} {ed}", YES, options=("HostKeyAlgorithms=ssh-ed25519",)
    ),
    "only certificates are allowed": Case(
        "@cert-authority * {ca}", YES, options=("HostKeyAlgorithms=ssh-ed25519-cert-v01@openssh.com",)
    ),
}
"""Hosts that present certificates."""


@pytest.mark.parametrize("name", CERTIFICATES)
def test_certificates_mean_what_they_mean_to_ssh(name: str, folder: Path, tmp_path: Path) -> None:
    """For each certificate and each known_hosts, `ssh` and dls give the same verdict, and the one that is expected."""
    case = CERTIFICATES[name]
    options = f"{case.server}HostCertificate {tmp_path}/{case.key}-cert.pub\n"
    for each in ("ed", "ecdsa", "rsa"):
        for path in (folder / each, folder / f"{each}.pub"):
            shutil.copy(path, tmp_path)
        options += f"HostKey {tmp_path}/{each}\n"
    certify(folder / case.authority, tmp_path / case.key, *case.certify, principals=case.principals, user=case.is_users)
    with run_lab(folder, tmp_path / "sshd", options) as lab:
        text = case.text.format(**lab.names) + "\n"
        verdicts = compare(lab, text, tmp_path, *case.options, values=("yes", "accept-new"), beside_ssh=not case.is_new)
    assert tuple(verdicts) == case.accepted
