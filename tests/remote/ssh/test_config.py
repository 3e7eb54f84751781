"""The SSH configuration, and the targets that it defines together with the options: with `ssh` and without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dls.errors import TargetError
from dls.remote.ssh.config import build_target, resolve_hops
from dls.remote.ssh.openssh_config import home_directory, parse, split_paths
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.target import Target

CONFIG = """
Host gpu
  HostName gpu1.example.org
  User ann
  Port 2222
  IdentityFile ~/.ssh/work
  UserKnownHostsFile ~/.ssh/hosts.d/work /etc/other
  IdentitiesOnly yes
Host inner
  ProxyJump bob@bastion:2200,gpu
Host bastion
  ProxyJump outer
Host odd
  ProxyCommand nc %h %p
Host alias
  HostKeyAlias cluster
Host loop
  ProxyJump loop2
Host loop2
  ProxyJump loop
"""


@pytest.fixture(params=["ssh", "paramiko"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The program that reads the configuration: `ssh`, or paramiko on a computer without it."""
    monkeypatch.setenv("HOME", str(home_directory()))  # paramiko goes by it, and `ssh` by the user database
    if request.param == "paramiko":
        monkeypatch.setenv("PATH", "/nowhere")
    return str(request.param)


def resolve(folder: Path, text: str, destination: str, **options: object) -> Target:
    config = folder / "ssh_config"
    config.write_text(text)
    return resolve_hops(destination, LoginOptions(ssh_config=config, **options))[-1]  # type: ignore[arg-type]


@pytest.mark.usefixtures("reader")
def test_include_is_followed(tmp_path: Path) -> None:
    """Includes may be nested, and the first value counts."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.conf").write_text(f"Include {tmp_path}/d/c.conf\nHost gpu\n  HostName gpu1.example.org\n")
    (tmp_path / "d" / "c.conf").write_text("Host cpu\n  HostName cpu1.example.org\n")
    text = f"Include {tmp_path}/d/a*.conf\nHost *\n  User ann\n"
    assert [resolve(tmp_path, text, name).host for name in ("gpu", "cpu")] == ["gpu1.example.org", "cpu1.example.org"]


@pytest.mark.usefixtures("reader")
def test_options_win_over_the_destination_and_that_over_the_configuration(tmp_path: Path) -> None:
    """The order is OpenSSH's; a key file that is missing is an error."""
    target = resolve(tmp_path, CONFIG, "gpu")
    assert (target.label, target.host, target.port, target.user) == ("gpu", "gpu1.example.org", 2222, "ann")
    assert target.identities == (home_directory() / ".ssh/work",)
    assert target.identities_only and Path("/etc/ssh/ssh_known_hosts") in target.global_known_hosts
    assert target.known_hosts == (home_directory() / ".ssh/hosts.d/work", Path("/etc/other"))
    assert target.known_hosts_name == "[gpu1.example.org]:2222"
    key = tmp_path / "k"
    key.touch()
    other = resolve(tmp_path, CONFIG, "bob@gpu:22", identities=(key,), ssh_port=2022)
    assert (other.user, other.port, other.identities[0]) == ("bob", 2022, key)
    assert resolve(tmp_path, CONFIG, "bob@gpu", user="eve").user == "eve"
    assert resolve(tmp_path, CONFIG, "gpu", ssh_options=("User=dan",)).user == "dan"
    with pytest.raises(TargetError, match="no key file"):
        resolve(tmp_path, CONFIG, "gpu", identities=(tmp_path / "typo",))


@pytest.mark.usefixtures("reader")
def test_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are the local user, port 22, the default keys and the user's known_hosts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    target = resolve_hops("host", LoginOptions())[-1]
    assert (target.port, target.known_hosts_name, target.strict_host_key_checking) == (22, "host", "ask")
    assert {path.name for path in target.identities} >= {"id_ed25519", "id_ecdsa", "id_rsa"}
    assert target.known_hosts[0].name == "known_hosts" and not target.named_identities
    assert target.methods[-3:] == ("publickey", "keyboard-interactive", "password")


@pytest.mark.usefixtures("reader")
def test_jump_hosts_and_aliases(tmp_path: Path) -> None:
    """Jump hosts are in order, nearest first, with those of the first one before it; a loop has an end."""
    assert resolve(tmp_path, CONFIG, "alias:2222").known_hosts_name == "cluster"
    assert resolve(tmp_path, CONFIG, "odd:2022").proxy_command == "nc odd 2022"
    config = LoginOptions(ssh_config=tmp_path / "ssh_config")
    assert [str(hop) for hop in resolve_hops("ann@inner", config)][1:3] == ["bob@bastion:2200", "ann@gpu:2222"]
    assert [hop.label for hop in resolve_hops("inner", config)] == ["outer", "bastion", "gpu", "inner"]
    assert [hop.label for hop in resolve_hops("gpu", LoginOptions(config.ssh_config, jump="a,b"))] == ["a", "b", "gpu"]
    with pytest.raises(TargetError, match="more than 16 jump hosts"):
        resolve_hops("loop", config)


@pytest.mark.usefixtures("reader")
def test_a_configuration_that_can_not_be_read(tmp_path: Path) -> None:
    """The message names a file that is missing or invalid."""
    with pytest.raises(TargetError, match="nowhere"):
        resolve_hops("host", LoginOptions(ssh_config=tmp_path / "nowhere"))
    with pytest.raises(TargetError, match="ssh_config"):
        resolve(tmp_path, "Host\nnonsense line without meaning = = =\n\0", "host")


def test_an_option_that_ssh_does_not_know(tmp_path: Path) -> None:
    """What `ssh` says of it is in the message."""
    with pytest.raises(TargetError, match="Bad configuration option: nonsense"):
        resolve(tmp_path, CONFIG, "gpu", ssh_options=("Nonsense=1",))


def test_what_only_ssh_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `ssh`, the first line of the configuration that only it understands is named, and does not match."""
    config = tmp_path / "config"
    config.write_text("Match localnetwork 10.0.0.0/8\n  ProxyJump bastion\n")
    monkeypatch.setenv("PATH", "/nowhere")
    notes: list[str] = []
    assert not resolve_hops("host", LoginOptions(ssh_config=config), notes.append)[0].jumps
    assert len(notes) == 1 and "Match localnetwork 10.0.0.0/8" in notes[0]


@pytest.mark.parametrize(
    ("line", "is_told"),
    [
        ("Ciphers -aes128-cbc", True),
        ("HostKeyAlgorithms=+ssh-rsa", True),
        ("CanonicalizeHostname=yes", True),
        ("CanonicalizeHostname  no", False),
        ("Ciphers aes256-ctr", False),
    ],
)
def test_lines_that_only_ssh_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, is_told: bool) -> None:
    """Without `ssh`, a change to OpenSSH's own list of algorithms is named, as nobody else knows that list."""
    config = tmp_path / "config"
    config.write_text(f"{line}\n")
    monkeypatch.setenv("PATH", "/nowhere")
    notes: list[str] = []
    [target] = resolve_hops("host", LoginOptions(ssh_config=config), notes.append)
    assert [line in note for note in notes] == [True] * is_told
    assert target.algorithms.ciphers == (("aes256-ctr",) if "aes256" in line else ())


@pytest.mark.usefixtures("reader")
def test_times_and_switches(tmp_path: Path) -> None:
    """They may be written in several ways, with `ssh` and without it."""
    text = "ConnectTimeout 1m30s\nServerAliveInterval 2M\nIdentitiesOnly True\nBatchMode YES\nHashKnownHosts No\n"
    target = resolve(tmp_path, text, "host")
    assert (target.connect_timeout, target.alive_interval) == (90, 120)
    assert (target.identities_only, target.batch_mode, target.hash_known_hosts) == (True, True, False)


def test_a_name_that_older_releases_print() -> None:
    """Before OpenSSH 8.5, as on Windows 10, `ssh -G` prints PubkeyAcceptedAlgorithms under its former name."""
    settings = parse("pubkeyacceptedkeytypes rsa-sha2-512\n")
    plain = parse("pubkeyacceptedkeytypes ssh-ed25519,rsa-sha2-512\n")
    assert build_target("gpu", settings, plain, LoginOptions()).algorithms.public_keys == ("rsa-sha2-512",)


def test_tokens_and_settings(tmp_path: Path) -> None:
    """Tokens are replaced where `ssh -G` leaves them; lists of algorithms count where they are not OpenSSH's own."""
    text = parse(
        "hostname gpu1\nuser ann\nidentityfile ~/.ssh/%h-%r-%p-%%\nidentityagent none\nciphers aes256-ctr,aes128-ctr\n"
        "kexalgorithms a,b\nproxycommand none\npasswordauthentication no\nstricthostkeychecking false\n"
        "userknownhostsfile /a b/kh /c\nconnecttimeout 7\nbatchmode yes\nknownhostscommand /bin/x\n"
    )
    plain = parse("kexalgorithms a,b\nciphers aes128-ctr\nidentityfile ~/.ssh/id_rsa\n")
    target = build_target("gpu:2200", text, plain, LoginOptions(), home=Path("/h"), local_user="me")
    assert target.identities == (Path("/h/.ssh/gpu1-ann-2200-%"),) == tuple(target.named_identities)
    assert target.algorithms.ciphers == ("aes256-ctr", "aes128-ctr") and not target.algorithms.kex
    assert (target.identity_agent, target.proxy_command, target.strict_host_key_checking) == ("none", "", "no")
    assert target.known_hosts == (Path("/a b/kh"), Path("/c"))
    assert (target.connect_timeout, target.batch_mode, target.openssh_only) == (7.0, True, "KnownHostsCommand")
    assert "password" not in target.methods


def test_paths_with_blanks() -> None:
    """`ssh -G` prints several paths in one line, without quotes."""
    assert split_paths(r"C:\Users\A B\kh C:\x") == [r"C:\Users\A B\kh", r"C:\x"]


def test_known_hosts_of_all_users_on_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssh -G` prints a word there that OpenSSH replaces itself; a key that is revoked in that file must be seen."""
    monkeypatch.setenv("PROGRAMDATA", "/data")
    text = r"globalknownhostsfile __PROGRAMDATA__\ssh/ssh_known_hosts __PROGRAMDATA__\ssh/ssh_known_hosts2"
    target = build_target("gpu", parse(text), {}, LoginOptions())
    assert target.global_known_hosts == (Path("/data/ssh/ssh_known_hosts"), Path("/data/ssh/ssh_known_hosts2"))


@pytest.mark.usefixtures("reader")
def test_backslashes_in_paths(tmp_path: Path) -> None:
    """They stand in the paths of Windows, and before a blank within a path; `ssh` and dls itself agree on them."""
    target = resolve(tmp_path, "UserKnownHostsFile /x\\Users\\ann /a\\ b\n", "host")
    assert target.known_hosts == (Path(r"/x\Users\ann"), Path("/a b"))


def test_a_quote_that_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without `ssh` it is an error of the configuration, which names the file."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TargetError, match="ssh_config"):
        resolve(tmp_path, "UserKnownHostsFile /home/o'brien/kh\n", "host")


def test_what_is_not_followed_is_named(tmp_path: Path) -> None:
    """A LocalCommand, which may fetch a ticket, is not run; a setting that only `ssh` honours is remembered."""
    config = tmp_path / "config"
    config.write_text("Host *\n  PermitLocalCommand yes\n  LocalCommand true\n  CASignatureAlgorithms ssh-ed25519\n")
    notes: list[str] = []
    [target] = resolve_hops("host", LoginOptions(ssh_config=config), notes.append)
    assert notes == ["dls does not follow LocalCommand of the SSH configuration."]
    assert target.openssh_only == "CASignatureAlgorithms"
