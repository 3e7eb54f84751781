"""What a host says reaches the terminal and the JSON lines without the characters that control a terminal."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dls.cli import console, events, prompter
from dls.cli.text import printable
from dls.demo import sshd
from dls.engine_choice import EngineChoice
from dls.errors import DlsError, HostError
from dls.gpus import Gpu
from dls.remote.host.stored_sessions import StoredSession
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NewHostKey, Question, QuestionKind
from dls.remote.ssh.shell import OutputCollector
from tests.cli.test_host import run_on_terminal
from tests.support.connecting import command
from tests.support.processes import free_port, interruptible

HOSTILE = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\x9b31md\x7fe\u202ef\rg\x00h"
"""Writes to the clipboard, clears the screen, colours, deletes, turns the direction of the text and overwrites."""
CONTROLS = {"\x1b]", "\x1b[2J", "\x07", "\x9b", "\x7f", "\u202e", "\x00"}
"""Of these none may reach a terminal; rich itself writes ESC [ for colours, but never ESC [ 2 J here."""


def assert_harmless(shown: str) -> None:
    assert "ZXZpbA==" in shown.replace("\n", "").replace("\u2502", "").replace(" ", ""), shown
    assert not [control for control in CONTROLS if control in shown], repr(shown)


def fake_programs(folder: Path) -> str:
    """Write an `nvidia-smi` and a `uname` whose answers are hostile, and return a PATH on which they come first."""
    folder.mkdir()
    hostile = HOSTILE.replace("\x00", "").encode().decode("latin-1")
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\necho '0, GPU {hostile}, 40000, 39000, 550.1, 8.0'\n", "latin-1")
    (folder / "uname").write_text(
        f'#!/bin/sh\nname="gpu{hostile}"\ncase $1 in\n-n) echo "$name" ;;\n-snm) echo "Linux $name x86_64" ;;\n'
        '*) exec /usr/bin/uname "$@" ;;\nesac\n',
        "latin-1",
    )
    for program in folder.iterdir():
        program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_a_hostile_host_on_the_command_line(clean: str, short_folder: Path) -> None:
    """Row 14: a GPU's name, a host's name and a log with escape sequences reach no terminal as such, neither on
    standard output nor on standard error, nor in the JSON lines once they are decoded."""
    path = fake_programs(short_folder / "bin")
    (short_folder / "ssh").mkdir()
    with sshd.running(short_folder / "ssh", options=f"SetEnv PATH={path}") as server:
        with (short_folder / "progress").open("w+") as progress:
            process = subprocess.Popen(
                command(server, clean, "connect", "--json", "--local-port", str(free_port())),
                stdout=subprocess.PIPE, stderr=progress, text=True, stdin=subprocess.DEVNULL, preexec_fn=interruptible,
            )  # fmt: skip
            assert process.stdout is not None
            events = []
            for line in process.stdout:
                events.append(json.loads(line))
                if events[-1]["event"] == "ready":
                    break
            process.send_signal(signal.SIGINT)
            events += [json.loads(line) for line in process.stdout]
            process.stdout.close()
            assert process.wait(30) == 0, (events, Path(progress.name).read_text())
            progress.seek(0)
            assert_harmless(progress.read())
        assert_harmless(" ".join(str(value) for event in events for value in event.values()))
        [log] = Path(clean).glob("log/*gpu*")
        with log.open("a") as stream:
            stream.write(f"a line with a tab\tand {HOSTILE}\n")
        logged = subprocess.run(command(server, clean, "logs"), capture_output=True, text=True, check=True)
        assert_harmless(logged.stdout)
        assert "a line with a tab\tand" in logged.stdout
        code, shown = run_on_terminal(command(server, clean, "connect", "--gpu", "7")[3:], {})
        assert code == 14
        assert_harmless(shown)
        log.unlink()


def shown_by(show: Callable[[Console], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a function writes to a terminal, which is standard output and standard error too."""
    terminal = io.StringIO()
    made = Console(file=terminal, force_terminal=True, width=300, soft_wrap=True, highlight=False)
    monkeypatch.setattr(console, "Console", lambda *arguments, **options: made)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    show(made)
    return terminal.getvalue()


def session() -> Any:
    """A session whose host is hostile wherever it can be."""
    return SimpleNamespace(
        connection=SimpleNamespace(target=SimpleNamespace(label=HOSTILE)),
        state=SimpleNamespace(engine=HOSTILE, device=HOSTILE, log=HOSTILE, pid=1),
        report=SimpleNamespace(gpus=(Gpu(0, HOSTILE, 1, 1, ""),)),
        login=SimpleNamespace(command=lambda *words: HOSTILE), job=None,
        seconds={}, target=HOSTILE, server_field="localhost", port=1, url="", local_secret=None, serves_viewers=True,
        choice=EngineChoice("region", HOSTILE), models=(HOSTILE,),
        page_url=HOSTILE,
    )  # fmt: skip


def reporting(call: str, *arguments: Any) -> Callable[[Console], object]:
    """Return a function that calls a method of a reporter for JSON lines, which shows everything on a console too."""

    def show(made: Console) -> None:
        reporter = events.JsonReporter(console.ConsoleReporter(made))
        reporter.begin("probe", "Looking at it")
        getattr(reporter, call)(*arguments)
        reporter.close()

    return show


DOORS: dict[str, Callable[[Console], object]] = {
    "error": lambda made: console.show_error(DlsError(HOSTILE, HOSTILE, detail=f"{HOSTILE}\n{HOSTILE}")),
    "begin": reporting("begin", "install", HOSTILE),
    "update": reporting("update", HOSTILE),
    "done": reporting("done", "probe", HOSTILE, 1.0),
    "note": reporting("note", HOSTILE),
    "link": reporting("link", False, HOSTILE),
    "session": lambda made: console.show_session(made, session()),
    "sessions": lambda made: console.show_sessions([StoredSession(HOSTILE, HOSTILE, None, 1, 1)], 0, as_json=False),
    "event": lambda made: events.write_event("x", deep={"list": [json.loads(json.dumps(HOSTILE))]}),
    "line": lambda made: console.write_line(HOSTILE),
    "banner": lambda made: console.show_banner(made, HOSTILE, HOSTILE, [(HOSTILE, 1, True)], [HOSTILE]),
    "host key": lambda made: _prompter(made).accept_host_key(
        NewHostKey(HOSTILE, HOSTILE, HOSTILE, HOSTILE, (HOSTILE,))
    ),
    "question": lambda made: _prompter(made).answer(Question(QuestionKind.HOST, "ann@gpu", HOSTILE, echo=True)),
}
"""Each function that shows something, called with what a hostile host said."""


def _prompter(made: Console) -> prompter.TerminalPrompter:
    return prompter.TerminalPrompter(console.ConsoleReporter(made))


@pytest.mark.parametrize("name", DOORS)
def test_every_way_to_the_terminal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 14: each function that writes to the terminal replaces control characters by visible ones."""
    assert_harmless(shown_by(DOORS[name], monkeypatch))


def test_json_is_harmless_once_it_is_decoded(capsys: pytest.CaptureFixture[str]) -> None:
    """Row 14: a program that prints a field of a JSON line prints no control character, whatever the field's depth."""
    events.write_event("note", text=HOSTILE, more={HOSTILE: [HOSTILE, 1, None]})
    fields = json.loads(capsys.readouterr().out)
    for text in (fields["text"], *fields["more"], fields["more"][next(iter(fields["more"]))][0]):
        assert_harmless(text)
    assert fields["more"][next(iter(fields["more"]))][1:] == [1, None]


def test_what_is_replaced() -> None:
    """Row 14: control characters of both sets, DEL and those that turn the direction of text; letters stay."""
    assert printable("a\x1bb\x9bc\x7fd\u202ee\u2066f\u2028g") == r"a\x1bb\x9bc\x7fd\u202ee\u2066f\u2028g"
    assert printable("one\ntwo\tthree\r") == r"one\ntwo\tthree\r"
    assert printable("one\ntwo\tthree\r", lines=True) == "one\ntwo\tthree\\r"
    assert printable("Jürgen, 東京, Ω, 🧠, العربية, café") == "Jürgen, 東京, Ω, 🧠, العربية, café"


def test_an_endless_answer_of_a_script(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 16: a script's output without end is refused in a sentence, whether it has lines or not, and the connection
    stays usable; a log that is followed may go on for ever, and only its end is kept."""
    monkeypatch.setattr("dls.remote.ssh.shell.MAX_OUTPUT", 1 << 20)
    for endless in ("yes", "cat /dev/zero"):
        with pytest.raises(HostError, match="more than"):
            connection.run(endless)
    assert connection.run("echo still here").stdout == "still here"
    lines: list[str] = []
    done = connection.run("yes | head -n 2000000; echo end", on_line=lines.append)
    assert len(lines) == 2_000_001 and len(done.stdout) < 2 << 20 and done.stdout.endswith("end")


def test_endless_noise_of_a_login_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 16: a login shell that prints without end before the script runs is not listened to for ever."""
    monkeypatch.setattr("dls.remote.ssh.shell.MAX_OUTPUT", 1 << 20)
    for noise in (b"Welcome to the cluster!\n" * 3000, b"\n" * 65536, b"x" * 65536):
        seen = OutputCollector("marker", None)
        received = 0
        while not seen.is_too_large:
            seen.feed(noise)
            received += len(noise)
        assert received <= (1 << 20) + 2 * len(noise)


def test_a_false_exit_status() -> None:
    """Row 15: a line that has the marker and no number is not taken for the end of the script."""
    for status in ("²", "-1", "x", "9" * 5000, ""):
        seen = OutputCollector("marker", None)
        seen.feed(f"marker-begin\nhello\nmarker-end {status}\n".encode())
        assert seen.status is None
