"""A closed host to which nothing is lent: what is said, when it is asked, and that nothing was done."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.closed.lab import CLOSED, Lab
from tests.closed.ways import Laptop, Way
from tests.closed.web import Web, public_names
from tests.support.connecting import click_once
from tests.support.processes import free_port, interruptible

WAYS_OUT = ("--lend-network", "dls pack", "--from")


@pytest.fixture(params=CLOSED)
def laptop(lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """A laptop with internet before each kind of a closed host."""
    made = Laptop(lab, Way(request.param), tmp_path)
    yield made
    made.remove()


def test_without_a_terminal(laptop: Laptop, web: Web) -> None:
    """It ends with exit code 19 and both ways out, whether the loan was refused or nobody could be asked."""
    before = web.bytes_sent
    for options in ([], ["--no-lend-network"], ["--json"]):
        done = laptop.try_to_connect(*options)
        said = done.stdout + done.stderr
        assert done.returncode == 19, said
        assert all(words in " ".join(said.split()) for words in WAYS_OUT), said
        assert "Traceback" not in said and (r"\n" not in said or "--json" in options)
    assert web.bytes_sent == before
    assert not [*laptop.kept.glob("env/*"), *laptop.kept.glob("code/*")]


@pytest.mark.slow
def test_doctor_says_it(laptop: Laptop) -> None:
    """`dls doctor` finds that the host is closed, and names the ways out."""
    done = laptop.dls("doctor", *laptop.options, laptop.way.target)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode and "--lend-network" in said and "--from" in said, said


def on_terminal(laptop: Laptop, answer: str, when_ready: Callable[[int], object]) -> tuple[int, str]:
    """Run `dls connect` on a terminal and answer its question; returns its exit code and what it showed.

    When the local port is open, `when_ready` is called with it, and then the command is ended as by Ctrl-C.
    """
    port = free_port()
    ours, theirs = pty.openpty()
    words = laptop.words("connect", *laptop.options, "--stop-server", "--local-port", port, laptop.way.target)
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=interruptible
    )
    os.close(theirs)
    shown, is_asked, is_ready = "", False, False
    with contextlib.suppress(OSError):  # the terminal closes when the command ends
        while data := os.read(ours, 65536):
            shown += data.decode(errors="replace")
            if not is_asked and "(yes/no)" in shown:
                is_asked = True
                os.write(ours, answer.encode() + b"\n")
            if not is_ready and f"Forwarding localhost:{port}" in shown:
                is_ready = True
                when_ready(port)
                process.send_signal(signal.SIGINT)
    code = process.wait(60)
    os.close(ours)
    assert is_asked, shown
    return code, shown


def fail(port: int) -> None:
    """Fail, since nothing was to be ready."""
    pytest.fail("the local port was opened")


def test_on_a_terminal_no_leads_to_the_message(laptop: Laptop, web: Web) -> None:
    """The question names what would be lent; whoever says no reads the ways out, and nothing was lent."""
    before = web.bytes_sent
    code, shown = on_terminal(laptop, "no", fail)
    assert code == 19 and all(words in " ".join(shown.split()) for words in WAYS_OUT), shown
    assert all(name in shown for name in public_names()), shown
    assert web.bytes_sent - before < 1e6 and not list(laptop.kept.glob("env/*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_a_terminal_yes_leads_to_a_click(laptop: Laptop, web: Web) -> None:
    """Whoever says yes gets a server, and is asked once."""
    clicked = []

    def click(port: int) -> None:
        laptop.node.call(lambda: click_once(port))
        clicked.append(port)

    _, shown = on_terminal(laptop, "yes", click)
    assert clicked and shown.count("(yes/no)") == 1, shown
