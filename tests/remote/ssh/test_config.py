"""The SSH configuration, and the target it defines together with the options."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from dls.errors import TargetError
from dls.remote.ssh.config import load_config, resolve

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


def test_include_is_followed(tmp_path: Path) -> None:
    """Patterns are relative to the file's folder; includes may be nested, and a file may include itself."""
    (tmp_path / "config").write_text("Include d/*.conf\nHost *\n  User ann\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.conf").write_text("Host gpu\n  HostName gpu1.example.org\nInclude d/a.conf\n")
    (tmp_path / "d" / "b.conf").write_text("Host cpu\n  HostName cpu1.example.org\n")
    config = load_config(tmp_path / "config")
    assert [resolve(name, config).host for name in ("gpu", "cpu")] == ["gpu1.example.org", "cpu1.example.org"]


def test_options_win_over_the_destination_and_that_over_the_configuration(tmp_path: Path) -> None:
    """The order is OpenSSH's; a key file that is missing is an error."""
    config = paramiko.SSHConfig.from_text(CONFIG)
    home = Path("/home/ann")
    target = resolve("gpu", config, home=home, local_user="me")
    assert (target.label, target.host, target.port, target.user) == ("gpu", "gpu1.example.org", 2222, "ann")
    assert target.identities == (Path.home() / ".ssh/work",)  # paramiko replaces ~ itself
    assert target.identities_only and target.known_hosts[-1] == Path("/etc/ssh/ssh_known_hosts")
    assert [path.name for path in target.known_hosts] == ["work", "other", "ssh_known_hosts"]
    assert target.known_hosts_name == "[gpu1.example.org]:2222"
    key = tmp_path / "k"
    key.touch()
    other = resolve("bob@gpu:22", config, identities=(key,), port=2022, home=home)
    assert (other.user, other.port, other.identities[0]) == ("bob", 2022, key)
    with pytest.raises(TargetError, match="no key file"):
        resolve("gpu", config, identities=(tmp_path / "typo",))


def test_defaults() -> None:
    """The defaults are the local user, port 22, the default keys and the user's known_hosts."""
    target = resolve("host", paramiko.SSHConfig(), home=Path("/h"), local_user="me")
    assert (target.user, target.port, target.known_hosts_name) == ("me", 22, "host")
    assert [path.name for path in target.identities] == ["id_ed25519", "id_ecdsa", "id_rsa"]
    assert target.known_hosts[0] == Path("/h/.ssh/known_hosts")


def test_jump_hosts_and_aliases() -> None:
    """Jump hosts are in order, nearest first; HostKeyAlias is the name in known_hosts; ProxyCommand is refused."""
    config = paramiko.SSHConfig.from_text(CONFIG)
    assert resolve("inner", config).jumps == ("bob@bastion:2200", "gpu")
    assert resolve("alias:2222", config).known_hosts_name == "cluster"
    with pytest.raises(TargetError, match="ProxyCommand"):
        resolve("odd", config)


def test_a_configuration_that_can_not_be_read(tmp_path: Path) -> None:
    """The message names a file that is missing or invalid."""
    with pytest.raises(TargetError, match="nowhere"):
        load_config(tmp_path / "nowhere")
    broken = tmp_path / "broken"
    broken.write_text("Host\nnonsense line without meaning = = =\n\0")
    with pytest.raises(TargetError, match="broken can't be understood"):
        load_config(broken)


def test_the_users_own_configuration_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -F, a missing ~/.ssh/config is an empty configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("host", load_config(None)).host == "host"
