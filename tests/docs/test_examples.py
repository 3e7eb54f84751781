"""The examples of the documentation are run as they stand there, on a laptop that can log in as `ann@gpuhost`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Example, list_blocks, list_commands
from tests.docs.test_links import TEST
from tests.support.accounts import needs_root
from tests.support.connecting import click_once
from tests.support.laptop import Laptop, laptop
from tests.support.processes import free_port, interruptible

ELSEWHERE = {
    r"^dls serve": "tests/cli/test_serve.py",
    r"^dls demo": "tests/test_demo.py",
    r"^dls check": "tests/cli/test_status.py",
    r"^dls uninstall": "tests/remote/test_uninstall.py",
    r"^dls segment": "tests/segment/test_command.py",
    r"^dls pack|--from": "tests/remote/parcel/test_whole_way.py",
    r"--lend-network": "tests/closed/test_whole_ways.py",
    r"^dls connect$": "tests/cli/test_known_hosts.py::test_the_last_one_is_offered_first",
    r"nninteractive|nnInteractive": "tests/remote/test_nninteractive.py",
    r"login\.cluster": "tests/cluster/test_whole_ways.py::test_a_click_on_a_cluster_is_answered_in_a_job",
    r"--via": "tests/remote/carriers/test_whole_ways.py",
    r"--through-exec": "tests/remote/carriers/test_whole_ways.py::test_a_host_that_forbids_forwarding",
    r" -p 2222": "tests/ways_in/test_options.py::test_options_win",
    r"--gpu 1": "tests/remote/host/test_choose_gpu.py",
    r"/scratch/ann": "tests/remote/host/test_odd_hosts.py::test_a_home_that_holds_nothing",
}
"""Examples that need another host than a plain one, by what stands in them, and the test that runs the like."""
COMMANDS = [
    example
    for page in PAGES
    for example in list_commands(page)
    if example.words[:1] == ["dls"] and not any(re.search(pattern, example.text) for pattern in ELSEWHERE)
]
PROGRAMS = [block for page in PAGES for block in list_blocks(page) if block.language == "python"]

pytestmark = [pytest.mark.slow, needs_root]


@pytest.fixture(scope="module")
def ann() -> Iterator[Laptop]:
    """A laptop, and a host on which a server was set up."""
    with laptop() as it:
        run(it, "dls connect ann@gpuhost --save")
        yield it


def run(it: Laptop, line: str) -> None:
    """Run a command line as it stands; one that connects is clicked through, and then ended with Ctrl-C."""
    run_in_shell = partial(subprocess.Popen, env=it.environment, cwd=it.home, stdin=subprocess.DEVNULL, text=True)
    if not line.startswith("dls connect"):
        with run_in_shell(["bash", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            text, _ = process.communicate(timeout=120)
        assert process.returncode == 0, text
        return
    wanted = re.search(r"--local-port (\d+)", line)
    port = int(wanted[1]) if wanted else free_port()
    words = ["bash", "-c", f"exec {line} --json --local-port {port}"]
    process = run_in_shell(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=interruptible)
    assert process.stdout is not None and process.stderr is not None
    errors = threading.Thread(target=process.stderr.read, daemon=True)
    errors.start()
    try:
        events = (json.loads(text) for text in process.stdout)
        assert any(event["event"] == "ready" for event in events), line
        click_once(port)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("example", COMMANDS, ids=str)
def test_a_command_does_what_it_is_there_for(ann: Laptop, example: Example) -> None:
    """The command line runs as it stands, and where it connects, a click through its port is answered."""
    run(ann, example.text)


@pytest.mark.parametrize("example", PROGRAMS, ids=str)
def test_a_program_runs(ann: Laptop, example: Example, tmp_path: Path) -> None:
    """The program runs as it stands."""
    done = subprocess.run(
        [sys.executable, "-c", example.text],
        env=ann.environment, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ELSEWHERE.values())
def test_the_other_examples_have_tests_of_their_own(name: str) -> None:
    """The test that stands for an example exists."""
    match = TEST.fullmatch(f"`{name}`")
    assert match is not None
    text = (ROOT / match[1]).read_text(encoding="utf-8")
    assert match[2] is None or f"def {match[2]}(" in text
