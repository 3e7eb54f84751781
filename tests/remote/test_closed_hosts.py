"""Closed hosts: what is said and asked, and what a loan brings there, over real SSH."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import dls
from dls.demo import sshd
from dls.remote.host import lock_files
from dls.remote.progress import Transfer
from dls.remote.ssh.transport import HostTransport
from tests.cli.test_host import run_on_terminal
from tests.support import package_index
from tests.support.command_line import run_dls
from tests.support.connecting import RecordingReporter, click_once
from tests.support.package_index import Index
from tests.support.processes import free_port
from tests.support.prompters import ScriptedPrompter

NOWHERE = "http://127.0.0.1:9"
CLOSED = f"SetEnv PIP_CONFIG_FILE=/dev/null HTTPS_PROXY={NOWHERE} https_proxy={NOWHERE} HTTP_PROXY={NOWHERE} NO_PROXY=x"
"""The lines of sshd_config of a host whose way out leads nowhere."""
QUESTION = "Lend it the network?"


@pytest.fixture
def closed(short_folder: Path) -> Iterator[sshd.Server]:
    """A host that reaches no internet."""
    with sshd.running(short_folder, options=CLOSED) as server:
        yield server
    subprocess.run(["pkill", "-f", f"launch-file {short_folder}/"], check=False)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A package index with what the region engine needs, the one that this computer is configured for."""
    wheels = package_index.download("closed", lock_files.read("region") + lock_files.read("uv"))
    with package_index.running(tmp_path, wheels) as running:
        for name in ("PIP_FIND_LINKS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("UV_DEFAULT_INDEX", running.url)
        monkeypatch.setenv("SSL_CERT_FILE", str(running.ca))
        yield running


class Transfers(RecordingReporter):
    """Remembers how far each transfer was, too."""

    def __init__(self) -> None:
        super().__init__()
        self.transfers: list[Transfer] = []
        self.updates: list[str] = []

    def update(self, text: str) -> None:
        self.updates.append(text)

    def transfer(self, transfer: Transfer) -> None:
        self.transfers.append(transfer)


def connect(
    host: sshd.Server,
    folder: Path,
    lend: bool | None = None,
    prompter: ScriptedPrompter | None = None,
    reporter: Transfers | None = None,
) -> tuple[dls.Session, Transfers]:
    """Connect to the host as a user does who decided so about its network."""
    reporter = reporter or Transfers()
    session = dls.connect(
        "dls-demo",
        login=dls.LoginOptions(ssh_config=host.config, remote_dir=f"{folder}/host"),
        network=dls.NetworkOptions(lend),
        local_port=free_port(),
        prompter=prompter,
        reporter=reporter,
    )
    return session, reporter


def test_without_a_decision_both_ways_out_are_named(closed: sshd.Server, short_folder: Path) -> None:
    """Without a terminal nothing is asked: the error has a code of its own, and both ways as whole commands."""
    arguments = ["-F", str(closed.config), "--remote-dir", f"{short_folder}/host", "dls-demo"]
    for option in ([], ["--no-lend-network"]):
        done = run_dls("connect", *option, *arguments)
        assert done.returncode == 19 and "Traceback" not in done.stderr
        again = f"dls connect -F {closed.config} --remote-dir {short_folder}/host dls-demo --engine region"
        assert f"{again} --lend-network" in done.stderr and f"{again} --from region.parcel" in done.stderr
        assert "dls pack --engine region --platform linux-" in done.stderr
    assert not (short_folder / "host" / "env").exists()


def test_what_doctor_says(closed: sshd.Server, short_folder: Path) -> None:
    """`dls doctor` finds the same, of the packages and of the weights, with the same exit code and advice."""
    arguments = ["--json", "-F", str(closed.config), "--remote-dir", f"{short_folder}/host", "dls-demo"]
    done = run_dls("doctor", "--engine", "nninteractive", "-m", f"{short_folder}/models", *arguments)
    found = [row for row in map(json.loads, done.stdout.splitlines()) if row["subject"] == "internet there"]
    assert done.returncode == 19 and [row["verdict"] for row in found] == ["failed", "failed"]
    assert "model hub" in found[1]["text"]
    assert all("--lend-network" in row["advice"] and "dls pack" in row["advice"] for row in found)


def test_a_user_who_says_no(closed: sshd.Server, short_folder: Path, index: Index) -> None:
    """The one question says what the host would reach, and until when; after a no nothing is installed."""
    prompter = ScriptedPrompter({QUESTION: "no"})
    with pytest.raises(dls.ClosedHostError):
        connect(closed, short_folder, prompter=prompter)
    [asked] = prompter.prompts
    assert f"localhost:{index.port}" in asked and "until the installation is done, one name" in asked
    assert not (short_folder / "host" / "env").exists()


def test_the_question_at_a_terminal(closed: sshd.Server, short_folder: Path, index: Index) -> None:
    """Another word than yes or no is told to be none; after a no, the command ends as it does without a terminal."""
    command = ["connect", "-F", str(closed.config), "--remote-dir", f"{short_folder}/host", "dls-demo"]
    code, shown = run_on_terminal(command, {f"{QUESTION} (yes/no)": "perhaps", "Please type 'yes' or 'no'": "no"})
    assert code == 19 and f"localhost:{index.port}" in shown and "--from region.parcel" in shown


@pytest.mark.slow
def test_a_user_who_says_yes(closed: sshd.Server, short_folder: Path, index: Index) -> None:
    """From the question to a click; the answer holds for the session: what is lost is set up again unasked."""
    prompter = ScriptedPrompter({QUESTION: "yes"})
    session, reporter = connect(closed, short_folder, prompter=prompter)
    with session:
        click_once(session.port)
        assert len(prompter.prompts) == 1 and reporter.phases.count("lend") == 1
        packages = [each for each in reporter.transfers if each.what == "packages"]
        assert packages and packages[-1].total and packages[-1].done > 1_000_000
        for complete in (short_folder / "host" / "env").glob("*/complete.json"):
            complete.unlink()
        subprocess.run(["kill", "-9", str(session.state.pid)], check=True)
        click_once(session.port)
        assert any("Setting up" in note for note in reporter.notes) and len(prompter.prompts) == 1
        session.close(stop_server=True)


class Cutting(Transfers):
    """Cuts the connection when so much of the packages has come."""

    def transfer(self, transfer: Transfer) -> None:
        super().transfer(transfer)
        if transfer.done > 20_000_000:
            for thread in threading.enumerate():
                if isinstance(thread, HostTransport):
                    thread.sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_what_has_come_is_not_fetched_again(closed: sshd.Server, short_folder: Path, index: Index) -> None:
    """A link that is cut in the middle is said to be cut; the next connect fetches the rest alone."""
    with pytest.raises(dls.LinkError):
        connect(closed, short_folder, lend=True, reporter=Cutting())
    assert not list((short_folder / "host" / "env").glob("*/complete.json"))
    first = {line for line in index.requests if line.endswith(".whl")}
    index.requests.clear()
    session, _ = connect(closed, short_folder, lend=True)
    with session:
        click_once(session.port)
        second = {line for line in index.requests if line.endswith(".whl")}
        assert any("click" in line for line in first) and not any("click" in line for line in second)
        session.close(stop_server=True)


@pytest.mark.slow
def test_a_mirror_that_only_pip_knows(short_folder: Path, index: Index) -> None:
    """A host whose pip has a mirror is no closed host: pip installs from there, and uv is not tried in vain before."""
    mirror = f"PIP_INDEX_URL={index.url} PIP_CERT={index.ca} UV_DEFAULT_INDEX=https://127.0.0.1:9/simple"
    with sshd.running(short_folder, options=f"SetEnv PIP_CONFIG_FILE=/dev/null {mirror}") as host:
        session, reporter = connect(host, short_folder, lend=False)
        with session:
            click_once(session.port)
            assert "lend" not in reporter.phases and "fetching uv" not in reporter.updates
            session.close(stop_server=True)
