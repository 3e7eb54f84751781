"""Where to log in."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from dls.errors import TargetError
from dls.remote.ssh.target import Spec, load_config, parse, resolve

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
Host odd
  ProxyCommand nc %h %p
Host alias
  HostKeyAlias cluster
"""


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("host", Spec("", "host", None)),
        ("ann@host", Spec("ann", "host", None)),
        ("ann@host:2222", Spec("ann", "host", 2222)),
        ("ssh://ann@host:22/", Spec("ann", "host", 22)),
        ("ann@corp@host", Spec("ann@corp", "host", None)),
        ("[::1]:22", Spec("", "::1", 22)),
        ("::1", Spec("", "::1", None)),
        ("ann@[fe80::1]", Spec("ann", "fe80::1", None)),
    ],
)
def test_the_text_is_split(text: str, spec: Spec) -> None:
    """User, host and port, as ssh takes them."""
    assert parse(text) == spec


@pytest.mark.parametrize(
    "text", ["", "ann@", ":22", "host:0", "host:70000", "host:x", "[::1", "[::1]x", "a b", "-oProxyCommand=x"]
)
def test_nonsense_is_refused(text: str) -> None:
    """With the text in the sentence."""
    with pytest.raises(TargetError):
        parse(text)


def test_include_is_followed(tmp_path: Path) -> None:
    """Globs, relative to the file's folder, nested; one that includes itself ends."""
    (tmp_path / "config").write_text("Include d/*.conf\nHost *\n  User ann\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.conf").write_text("Host gpu\n  HostName gpu1.example.org\nInclude d/a.conf\n")
    (tmp_path / "d" / "b.conf").write_text("Host cpu\n  HostName cpu1.example.org\n")
    config = load_config(tmp_path / "config")
    assert [resolve(name, config).host for name in ("gpu", "cpu")] == ["gpu1.example.org", "cpu1.example.org"]


def test_the_configuration_fills_in_what_is_not_said(tmp_path: Path) -> None:
    """As in OpenSSH: options win over the text, the text over the configuration."""
    config = paramiko.SSHConfig.from_text(CONFIG)
    home = Path("/home/ann")
    target = resolve("gpu", config, home=home, local_user="me")
    assert (target.label, target.host, target.port, target.user) == ("gpu", "gpu1.example.org", 2222, "ann")
    assert target.identities == (Path(Path.home() / ".ssh/work"),) or target.identities == (home / ".ssh/work",)
    assert target.identities_only and target.known_hosts[-1] == Path("/etc/ssh/ssh_known_hosts")
    assert [path.name for path in target.known_hosts] == ["work", "other", "ssh_known_hosts"]
    assert target.known_as == "[gpu1.example.org]:2222"
    key = tmp_path / "k"
    key.touch()
    other = resolve("bob@gpu:22", config, identities=(key,), port=2022, home=home)
    assert (other.user, other.port, other.identities[0]) == ("bob", 2022, key)
    with pytest.raises(TargetError, match="no key file"):
        resolve("gpu", config, identities=(tmp_path / "typo",))


def test_defaults() -> None:
    """The local user, port 22, the usual keys and known_hosts."""
    target = resolve("host", paramiko.SSHConfig(), home=Path("/h"), local_user="me")
    assert (target.user, target.port, target.known_as) == ("me", 22, "host")
    assert [path.name for path in target.identities] == ["id_ed25519", "id_ecdsa", "id_rsa"]
    assert target.known_hosts[0] == Path("/h/.ssh/known_hosts")


def test_jump_hosts_and_aliases() -> None:
    """Nearest first; an alias is what known_hosts is asked for."""
    config = paramiko.SSHConfig.from_text(CONFIG)
    assert resolve("inner", config).jumps == ("bob@bastion:2200", "gpu")
    assert resolve("alias:2222", config).known_as == "cluster"
    with pytest.raises(TargetError, match="ProxyCommand"):
        resolve("odd", config)


def test_a_configuration_that_can_not_be_read(tmp_path: Path) -> None:
    """Named in the sentence; a missing one of the user's own is no error."""
    with pytest.raises(TargetError, match="nowhere"):
        load_config(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    broken.write_text("Host\nnonsense line without meaning = = =\n\0")
    try:
        load_config(broken)
    except TargetError as error:
        assert "broken" in error.message
