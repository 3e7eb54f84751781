"""What commands for a host say when something is not as it was expected: once, early, and of what was asked."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import pytest

from dls.cli.encodings import SIMILAR
from dls.demo import sshd
from tests.support.command_line import run_dls

ROOT = Path(__file__).parents[2]


def options(host: sshd.Server, remote_dir: str) -> tuple[str, ...]:
    return ("-F", str(host.config), "--remote-dir", remote_dir)


def test_a_busy_port_is_noticed_before_the_login(host: sshd.Server, tmp_path: Path) -> None:
    """Nobody logs in, and nothing is installed or started, for a port that can't be opened in the end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_dls("connect", *options(host, str(tmp_path / "remote")), "--local-port", port, "dls-demo")
    assert done.returncode == 17 and port in done.stderr and "Logged in" not in done.stderr
    assert not (tmp_path / "remote").exists()


@pytest.mark.parametrize("model", [(), ("--model", "nnInteractive_x"), ("--model", "~/none/x")])
def test_a_model_that_may_not_be_fetched(host: sshd.Server, tmp_path: Path, model: tuple[str, ...]) -> None:
    """It is missed before torch is installed for it, with the command that sends it there."""
    words = ("connect", *options(host, str(tmp_path / "remote")), "--engine", "nninteractive", "--no-network", *model)
    words = (*words, "--accept-licence")
    done = run_dls(*words, "--models-path", str(tmp_path / "models"), "dls-demo")
    push = f"dls models push -F {host.config} "
    assert done.returncode == 21 and push in done.stderr, done.stderr
    assert f"@dls-demo -m {tmp_path}/models`" in done.stderr and f" --ssh-port {host.port} " in done.stderr
    assert "Setting up" not in done.stderr and not (tmp_path / "remote" / "env").exists()


def test_a_failure_of_the_server_is_told_once(host: sshd.Server, clean: str) -> None:
    """What the log says and what the error says are the same: its sentence and its hint stand there once."""
    done = run_dls("connect", *options(host, clean), "--engine", "region", "--device", "cuda", "dls-demo")
    assert done.returncode == 16
    assert done.stderr.count("CPU only") == 1 and done.stderr.count("Leave out --device") == 1


def test_sessions_that_nobody_has(host: sshd.Server, tmp_path: Path) -> None:
    """A name that fits no session is named; that there are none is said only where nobody named one."""
    named = run_dls("sessions", *options(host, str(tmp_path)), "dls-demo", "zzz")
    assert "No session there begins with zzz." in named.stderr and "No sessions are stored" not in named.stdout
    assert "No sessions are stored there." in run_dls("sessions", *options(host, str(tmp_path)), "dls-demo").stdout


@pytest.mark.parametrize(("encoding", "shown"), [("cp1252", "+ 100% ?…"), ("utf-8", "✓ 100% ł…")])
def test_a_log_that_the_terminal_can_not_show(host: sshd.Server, tmp_path: Path, encoding: str, shown: str) -> None:
    """A log in UTF-8 is printed on a terminal with another code page: what that lacks is replaced."""
    log = tmp_path / "log" / f"server-{platform.node()}.log"
    log.parent.mkdir()
    log.write_text("✓ 100% ł…\n", encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = run_dls("logs", *options(host, str(tmp_path)), "dls-demo", env=env, encoding=encoding)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert done.stdout.strip() == shown


def test_every_character_that_is_written_has_one_that_is_similar() -> None:
    """Whatever cp1252 lacks of the characters in the texts of dls has a stand-in, and becomes no question mark."""
    # The first of these lists them, the second one draws in a docstring.
    files = [path for path in (ROOT / "dls").rglob("*.py") if path.name not in ("encodings.py", "errors.py")]
    written = {character for path in files for character in path.read_text(encoding="utf-8")}
    lacking = {character for character in written if not character.encode("cp1252", "ignore")}
    assert lacking and lacking <= set(SIMILAR), lacking - set(SIMILAR)
