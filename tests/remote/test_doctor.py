"""`dls doctor`: the way to a host from end to end, changed nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.demo import sshd
from tests.remote.carriers.test_whole_ways import HIDE_SSHD, without_sshd_works
from tests.support.connecting import connected

Row = dict[str, str]


def doctor(*arguments: str, **environment: str) -> tuple[int, list[Row]]:
    """Run the command; returns its exit code and its findings."""
    done = subprocess.run(
        [sys.executable, "-m", "dls", "doctor", "--json", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def verdicts(rows: list[Row], subject: str) -> list[str]:
    return [row["verdict"] for row in rows if row["subject"] == subject]


def failures(rows: list[Row]) -> list[str]:
    return [row["subject"] for row in rows if row["verdict"] == "failed"]


@pytest.fixture
def own(short_folder: Path) -> Iterator[sshd.Server]:
    """An SSH server of the test's own."""
    with sshd.running(short_folder) as server:
        yield server


def tree(folder: Path) -> set[tuple[str, int]]:
    return {(str(path), path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def test_this_computer_alone() -> None:
    """Without a host, only this computer is looked at; a proxy that would catch the local port is named."""
    code, rows = doctor(http_proxy="http://127.0.0.1:9", no_proxy="", NO_PROXY="")
    assert code == 0 and verdicts(rows, "web proxy") == ["warning"]
    assert {row["subject"] for row in rows} == {"ssh", "local port", "web proxy"}


@pytest.mark.parametrize("carrier", ["paramiko", "openssh"])
def test_a_host_that_is_fine(own: sshd.Server, short_folder: Path, carrier: str) -> None:
    """Each piece of the way is found and works; there is one login, and nothing is left on the host."""
    remote_dir = short_folder / "host"
    code, rows = doctor("-F", str(own.config), "--carrier", carrier, "--remote-dir", str(remote_dir), "dls-demo")
    assert (code, failures(rows)) == (0, [])
    assert verdicts(rows, "forwarding") == ["ok", "ok", "ok"]
    assert {"configuration", "login", "shell", "Python", "disk", "installation", "internet there", "server"} <= {
        row["subject"] for row in rows
    }
    assert (short_folder / "sshd.log").read_text().count("Accepted publickey") == 1
    assert not remote_dir.exists()


def test_a_server_that_runs(clean: str, host: sshd.Server) -> None:
    """The server is found and answers through the connection; its secret is in no finding, and its files stay."""
    session, _ = connected(host, clean)
    session.close()
    before = tree(Path(clean) / "env") | tree(Path(clean) / "code")
    code, rows = doctor("-F", str(host.config), "--remote-dir", clean, "dls-demo")
    [found] = [row for row in rows if row["subject"] == "server"]
    assert code == 0 and found["verdict"] == "ok" and "region" in found["text"]
    assert session.state.secret is None or session.state.secret not in json.dumps(rows)
    assert tree(Path(clean) / "env") | tree(Path(clean) / "code") == before


def test_a_host_that_forbids_forwarding(short_folder: Path) -> None:
    """The exit code is the one that `dls connect` would end with; with --through-exec it would not."""
    with sshd.running(short_folder, options="DisableForwarding yes") as server:
        arguments = ["-F", str(server.config), "--remote-dir", f"{short_folder}/host", "dls-demo"]
        code, rows = doctor(*arguments)
        assert (code, failures(rows)) == (17, ["forwarding"])
        code, rows = doctor("--through-exec", *arguments)
        assert (code, failures(rows)) == (0, [])


@pytest.mark.parametrize(
    ("settings", "code", "subject"),
    [
        ("HostName no-such-host.invalid", 11, "name"),
        ("Port 1", 11, "connection"),
        ("IdentityFile /nowhere\n  IdentitiesOnly yes", 13, "login"),
        ("Nonsense yes", 10, "configuration"),
    ],
)
def test_where_the_way_ends(own: sshd.Server, short_folder: Path, settings: str, code: int, subject: str) -> None:
    """The first piece that fails is the last finding, with what to do."""
    config = short_folder / "config"
    lines = own.config.read_text().splitlines()
    kept = [line for line in lines[1:] if line.split()[0] not in settings]
    config.write_text("\n".join([lines[0], f"  {settings}", *kept]) + "\n")
    found, rows = doctor("-F", str(config), "dls-demo")
    assert (found, failures(rows)) == (code, [subject]) and rows[-1]["subject"] == subject and rows[-1]["advice"]


@pytest.mark.skipif(not without_sshd_works(), reason="needs root, to hide sshd in a mount namespace")
def test_nothing_is_installed(short_folder: Path) -> None:
    """On a host without an SSH server, `dls connect` would install one; here it is only told."""
    code, rows = doctor("--via", HIDE_SSHD, "--remote-dir", f"{short_folder}/host", "box")
    assert code == 0 and verdicts(rows, "login") == ["unknown"] and not (short_folder / "host").exists()


def test_a_changed_host_key(own: sshd.Server, short_folder: Path) -> None:
    """It is found before any login."""
    other = (short_folder / "id_ed25519").with_suffix(".pub")
    other.write_text((short_folder / "authorized_keys").read_text())
    (short_folder / "known_hosts").write_text(f"[127.0.0.1]:{own.port} {other.read_text()}")
    code, rows = doctor("-F", str(own.config), "dls-demo")
    assert (code, failures(rows)) == (12, ["host key"])
    assert "Accepted" not in (short_folder / "sshd.log").read_text()
