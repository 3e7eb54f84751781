"""A shell at the other end of a pipe, with every shell that this machine has."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.errors import ConnectError, HostError, LinkError
from dls.remote.ssh.pipe import Pipe
from dls.remote.ssh.pipe_shell import PipeShell
from dls.remote.ssh.target import Target

TARGET = Target("box", "box", 22, "ann")
SHELLS = [name for name in ("dash", "bash", "busybox", "ksh", "zsh") if shutil.which(name)]


@pytest.fixture(params=[(shell, pumps) for shell in SHELLS for pumps in (False, True)], ids=str)
def shell(request: pytest.FixtureRequest) -> Iterator[PipeShell]:
    """A started shell, with the bytes copied in threads, as on Windows, or not."""
    name, pumps = request.param
    pipe = Pipe(["busybox", "sh"] if name == "busybox" else [name], pumps=pumps)
    started = PipeShell(TARGET, pipe.socket)
    started.start()
    yield started
    pipe.close()
    assert pipe.process.poll() is not None


def test_scripts_run_one_after_the_other(shell: PipeShell) -> None:
    """Each has its own status and output, reads nothing, and leaves the shell as it was."""
    lines: list[str] = []
    done = shell.run("cat; echo one; echo two; cd /; exit 7", on_line=lines.append)
    assert (done.status, done.stdout, lines) == (7, "one\ntwo", ["one", "two"])
    assert shell.run("echo 'a\"b$c'; printf 'no end'").stdout == 'a"b$c\nno end'


def test_a_file_is_written(shell: PipeShell, tmp_path: Path) -> None:
    """Bytes of every kind arrive in a file of the user's own; a folder that is missing is told."""
    path = tmp_path / "it's a file"
    data = [secrets.token_bytes(size) for size in (1, 70_000, 0, 300_000)]
    shell.append(str(path), 0, data)
    assert path.read_bytes() == b"".join(data) and path.stat().st_mode & 0o77 == 0
    with pytest.raises(HostError, match="can't be written"):
        shell.append(f"{tmp_path}/no/file", 0, [b"x"])


def test_the_shell_becomes_another_program(shell: PipeShell) -> None:
    """What the program reads and writes after its first line is untouched; without one, the shell stays."""
    assert shell.become("true") == ""
    assert shell.become('echo noise; printf "%s %s\\n" "$READY" "the word"; exec cat') == "the word"
    shell._send("exactly this\n")
    assert shell._read_line(10) == "exactly this"


@pytest.mark.parametrize("command", [["true"], ["cat"], ["sh", "-c", "echo go away; exit 3"]])
def test_what_is_no_shell(command: list[str]) -> None:
    """A command that ends or repeats its input is told, with what it printed."""
    pipe = Pipe(command)
    shell = PipeShell(TARGET, pipe.socket)
    with pytest.raises(ConnectError, match="no shell"):
        shell.start()
    assert ("go away" in shell.noise) == (len(command) > 1)
    pipe.close()


def test_a_shell_that_ends_in_the_middle() -> None:
    """It is a lost link, not a hang."""
    pipe = Pipe(["sh"])
    shell = PipeShell(TARGET, pipe.socket)
    shell.start()
    with pytest.raises(LinkError, match="ended in the middle"):
        shell.run("kill -9 $$")
    pipe.close()
