"""The lines below "Ready": what they tell, that they move on a terminal only, and the notices of an outage."""

from __future__ import annotations

import os
import pty
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dls.cli import live_lines
from dls.cli.console import Console
from dls.cli.live import notice_command, send_notice
from dls.demo import sshd
from dls.gpus import Gpu
from dls.remote.host.facts import LastPrompt, ServerFacts
from dls.remote.tunnel.observation import Observation
from dls.remote.tunnel.traffic import Answered, Traffic
from tests.support.connecting import click_once, connected, cut
from tests.support.processes import free_port, until

UP = Observation("open", 4300.0, restored=2, last=Answered("point", 0.42, 100.0), now=140.0)
LOST = Observation("lost", 42.0, "It was cut.", next_try=8.0, waiting=1)
FACTS = ServerFacts(
    "1.0", "nninteractive", "nninteractive nnInteractive_v1.0", "cuda:0", Gpu(0, "A100", 81920, 71680, "580"), 2, 5,
    LastPrompt("point", 0.31, 0.4, 40.0), 1.0, 1800.0,
)  # fmt: skip


def test_what_is_told_of_an_open_link() -> None:
    """Since when, the round trip, the reconnects; the server's engine, GPU, sessions, last request and end."""
    assert live_lines.describe_link(UP, 0.023) == ["link up for 1 h 12 min", "round trip 23 ms", "2 reconnects"]
    assert live_lines.describe_server(FACTS, UP) == [
        "nninteractive (nnInteractive_v1.0) on cuda:0",
        "A100, 70.0 of 80.0 GiB free",
        "sessions: 2 awake, 5 asleep",
        "point 40 s ago: whole 0.42 s, model 0.31 s",
        "server ends 30 min after the last use",
    ]
    assert live_lines.describe_server(ServerFacts(), replace(UP, last=None)) == []  # a server of an earlier release


def test_what_is_told_of_an_outage() -> None:
    """Since when, the next try, and what waits; a server that sleeps is no outage."""
    assert live_lines.describe_link(LOST, 0.02) == ["link lost for 42 s", "next try in 8 s", "1 request waits"]
    trying = replace(LOST, next_try=None, waiting=0)
    assert live_lines.describe_link(trying, None) == ["link lost for 42 s", "trying now"]
    assert live_lines.describe_link(replace(LOST, state="asleep"), None)[0].startswith("server asleep for 42 s")


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_lines_fit_the_terminal(width: int) -> None:
    """Parts stand beside each other where there is room, and a part is cut off only where it is wider by itself."""
    parts = live_lines.describe_link(UP, 0.02) + live_lines.describe_server(FACTS, UP)
    lines = live_lines.fill(parts, width)
    assert all(len(line) <= width for line in lines) and len(lines) == {20: 8, 40: 7, 80: 4, 200: 2}[width]


def test_a_notice_comes_after_long_outages_and_at_their_end() -> None:
    """A short one is not told, a long one once, and that it is over."""
    notices = live_lines.Notices()
    seen = [UP, replace(LOST, seconds=3.0), UP, replace(LOST, seconds=21.0), LOST, UP, UP]
    told = [notices.look(each, "gpu1") for each in seen]
    assert told == ["", "", "", "dls: the link to gpu1 is lost", "", "dls: the link to gpu1 is back", ""]


def test_how_a_notice_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The desktop's program gets it as one argument, a terminal the bell, and the notice where that program fails."""
    program, log = tmp_path / "notify-send", tmp_path / "log"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for status, shown in ((0, "\x07"), (3, "\x07\x1b]9;dls: the link to $(x) is lost\x07")):
        program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >{log}\nexit {status}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        with (tmp_path / "screen").open("w+") as screen:
            send_notice("dls: the link to $(x) is lost", Console(file=screen, force_terminal=True))
            screen.seek(0)
            assert screen.read() == shown
        assert log.read_text() == "--app-name=dls|--|dls: the link to $(x) is lost|"
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert notice_command("x") == []


def test_a_notice_on_an_old_console_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the bell alone: it would show the sequence of a notice as text."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with (tmp_path / "screen").open("w+") as screen:
        send_notice("dls: gone", Console(file=screen, force_terminal=True, legacy_windows=True))
        screen.seek(0)
        assert screen.read() == "\x07"


def test_only_prompts_are_remembered() -> None:
    """Of what goes through the local port a prompt is remembered when it is answered, by its kind and its time."""
    traffic = Traffic()
    with traffic.counting(b"/upload_raw/1"):
        assert traffic.under_way == 1
    with pytest.raises(ZeroDivisionError), traffic.counting(b"/process_lasso_interaction/1"):
        raise ZeroDivisionError
    assert traffic.last is None and traffic.under_way == 0
    for target, kind in ((b"/v2/process_point_interaction/1?a=b", "point"), (b"/add_bbox_interaction", "box")):
        with traffic.counting(target):
            pass
        assert traffic.last is not None and traffic.last.kind == kind


def test_what_a_session_observes(host: sshd.Server, clean: str) -> None:
    """The link's state and its reconnects, the server's facts and the last prompt, from a real connection."""
    session, reporter = connected(host, clean)
    with session:
        assert session.observe().state == "open" and session.observe().last is None
        click_once(session.port)
        until(lambda: session.observe().last)  # counted after the answer was passed on
        answer = session.ask_facts()
        assert answer is not None
        facts, seen = answer[1], session.observe()
        assert facts.engine == "region" and facts.awake == 1 and facts.last is not None and facts.last.kind == "point"
        assert seen.last is not None and seen.last.seconds >= facts.last.model
        cut(session)
        until(lambda: reporter.links == [False, True])
        assert session.observe().restored == 1 and session.observe().state == "open"
    assert session.observe().state == "closed" and session.ask_facts() is None


def test_the_lines_move_on_a_terminal_and_are_gone_at_the_end(host: sshd.Server, clean: str) -> None:
    """They tell of the link and of the server's sessions, and Ctrl-C ends the command as before."""
    ours, theirs = pty.openpty()
    port = free_port()
    words = ["connect", "-F", str(host.config), "--remote-dir", clean, "--local-port", str(port), "dls-demo"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dls", *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    text = ""

    def read_until(wanted: str) -> None:
        nonlocal text
        while wanted not in text:
            text += os.read(ours, 65536).decode(errors="replace")

    try:
        read_until("link up for")
        read_until("sessions: 0 awake")
        click_once(port)
        read_until("sessions: 1 awake")
        read_until("whole ")
        assert "round trip" in text
        process.send_signal(signal.SIGINT)
        read_until("Closing the connection")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
