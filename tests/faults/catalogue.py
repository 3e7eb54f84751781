"""Faults of links, servers, clients and hosts, each as a function that causes it while somebody works."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.faults.lab import OTHER, Client, Lab, Work, is_gone
from tests.faults.polls import Polls, polling


@dataclass
class Scene:
    """A client at work, and the lab whose parts fail."""

    lab: Lab
    client: Client
    work: Work
    polls: Polls
    since: float = 0.0
    """When the outage ended or, for a fault without an outage, when it happened."""

    def start_clock(self) -> None:
        """Measure the seconds until the next answer from now on."""
        self.since = time.monotonic()


@dataclass(frozen=True)
class Fault:
    """A fault, its name and the lab that it needs; `slow` ones take more than 15 s."""

    name: str
    inject: Callable[[Scene], None]
    slow: bool = False
    side: int = 48
    """Side of the image in voxels."""
    sshd: str = ""
    """Further lines of sshd_config."""
    delay: float = 0.0
    """Seconds that every byte takes in one direction."""
    client_ends: bool = False
    """Whether the client itself ends, so that nobody listens for a while and a click would fail too."""


@dataclass(frozen=True)
class Outcome:
    """The seconds until the next click was answered, what was lost, and how long polls failed."""

    seconds: float
    lost: tuple[str, ...]
    failing: float
    """Seconds in which a poll of `/status` failed, or was not answered soon."""


def run_fault(lab: Lab, fault: Fault) -> Outcome:
    """Cause the fault while a client works, and compare the next masks with those of an engine without faults."""
    if fault.sshd:
        lab.stop_sshd()
        lab.start_sshd(fault.sshd)
    with contextlib.ExitStack() as stack:
        if fault.delay:
            stack.enter_context(lab.delayed(fault.delay))
        return _run_in_lab(lab, fault)


def _run_in_lab(lab: Lab, fault: Fault) -> Outcome:
    client = Client(lab)
    try:
        work = Work(client.port, fault.side).begin()
        with polling(client.port) as polls:
            scene = Scene(lab, client, work, polls)
            scene.start_clock()
            fault.inject(scene)
            scene.work.click()
            seconds = time.monotonic() - scene.since
            scene.work.scribble()
        return Outcome(seconds, tuple(scene.work.lost), polls.failing)
    finally:
        client.close()
        if fault.sshd:
            lab.stop_sshd()
            lab.start_sshd()


@contextlib.contextmanager
def in_background(action: Callable[[], None]) -> Iterator[threading.Thread]:
    """Run an action in a thread, and wait for it at the end."""
    thread = threading.Thread(target=action)
    thread.start()
    yield thread
    thread.join()


def outage(
    break_link: Callable[[Lab], contextlib.AbstractContextManager[None]], seconds: float
) -> Callable[[Scene], None]:
    """Return a fault that breaks the link for so long; a click is made meanwhile if the client waits that long."""

    def inject(scene: Scene) -> None:
        with contextlib.ExitStack() as stack:
            with break_link(scene.lab):
                if seconds < 50:
                    stack.enter_context(in_background(scene.work.click))
                time.sleep(seconds)
            scene.start_clock()

    return inject


def dropped(lab: Lab) -> contextlib.AbstractContextManager[None]:
    return lab.filtered("-j", "DROP")


def reset(lab: Lab) -> contextlib.AbstractContextManager[None]:
    return lab.filtered("-p", "tcp", "-j", "REJECT", "--reject-with", "tcp-reset")


def lossy(scene: Scene) -> None:
    with scene.lab.filtered("-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP"):
        for _ in range(10):
            scene.work.click()
        scene.start_clock()
        scene.work.click()


@contextlib.contextmanager
def stopped_sshd(lab: Lab) -> Iterator[None]:
    pids = lab.sshd_children()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGCONT)


def sshd_child_killed(scene: Scene) -> None:
    scene.lab.signal_sshd(signal.SIGKILL)


def sshd_restarted(scene: Scene) -> None:
    scene.lab.stop_sshd()
    time.sleep(3)
    scene.lab.start_sshd()
    scene.start_clock()


def moved(scene: Scene) -> None:
    """Give the host another address, and drop packets to the old one."""
    scene.lab.move_to(OTHER)
    with scene.lab.filtered("-d", "10.213.7.2", "-j", "DROP"):
        scene.work.click()
    scene.lab.move_to("10.213.7.2")


def killed(scene: Scene) -> None:
    os.kill(scene.lab.server(), signal.SIGKILL)


def killed_while(start: Callable[[Scene], None], condition: Callable[[Scene], bool]) -> Callable[[Scene], None]:
    """Return a fault that kills the server when a condition holds during some work."""

    def inject(scene: Scene) -> None:
        server = scene.lab.server()
        with in_background(lambda: start(scene)) as thread:
            while thread.is_alive() and not condition(scene):
                time.sleep(0.0005)
            assert thread.is_alive(), "it was over before the server could be killed"
            scene.start_clock()
            os.kill(server, signal.SIGKILL)

    return inject


def is_upload_running(scene: Scene) -> bool:
    """Whether the server is writing a second image."""
    found = [path for root in scene.lab.session_folders for path in root.glob(f"{scene.work.snap.session}/image-*")]
    return len(found) > 1


def journal_size(scene: Scene) -> int:
    """Return the size in bytes of the journal in which the session's prompts are stored."""
    found = [path for root in scene.lab.session_folders for path in root.glob(f"{scene.work.snap.session}/prompts-*")]
    return max((path.stat().st_size for path in found), default=0)


class Written:
    """Whether a prompt has been written to the journal; its answer has not been sent yet."""

    def __init__(self) -> None:
        self.before: int | None = None

    def __call__(self, scene: Scene) -> bool:
        if self.before is None:
            self.before = journal_size(scene)
        return journal_size(scene) > self.before


class Computing:
    """Whether the engine has used some processor time for a prompt."""

    def __init__(self) -> None:
        self.before: int | None = None

    def __call__(self, scene: Scene) -> bool:
        fields = Path(f"/proc/{scene.lab.engine()}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        if self.before is None:
            self.before = ticks
        return ticks - self.before > 3


def written(scene: Scene) -> None:
    killed_while(lambda scene: scene.work.click(), Written())(scene)


def computing(scene: Scene) -> None:
    killed_while(lambda scene: scene.work.click(), Computing())(scene)


def out_of_memory(scene: Scene) -> None:
    """Kill the engine as the kernel does: it chooses the process with the highest score."""
    assert int(Path(f"/proc/{scene.lab.engine()}/oom_score_adj").read_text()) >= 500
    os.kill(scene.lab.engine(), signal.SIGKILL)


def stopped(scene: Scene) -> None:
    os.kill(scene.lab.server(), signal.SIGSTOP)


def socket_deleted(scene: Scene) -> None:
    for path in Path(scene.lab.remote_dir).glob("run/*/server.sock"):
        path.unlink()


def tmp_cleaned(scene: Scene) -> None:
    shutil.rmtree(f"{scene.lab.remote_dir}/run")


def port_taken(scene: Scene) -> None:
    """Kill a server that listens on a port, and let another program take that port before the server is restarted."""
    import json

    [state] = Path(scene.lab.remote_dir).glob("run/*/state.json")
    fields = json.loads(state.read_text())
    taking = f"import socket; s = socket.create_server(('127.0.0.1', {fields['port']})); import time; time.sleep(600)"
    os.kill(fields["pid"], signal.SIGKILL)
    while not is_gone(fields["pid"]):
        time.sleep(0.01)
    taker = subprocess.Popen(["ip", "netns", "exec", scene.lab.space, "python3", "-c", taking])
    try:
        scene.work.click()
    finally:
        taker.kill()
        taker.wait()


def client_killed(scene: Scene) -> None:
    """Kill the client and start another one on the same port."""
    scene.client.process.kill()
    scene.client.process.wait()
    scene.start_clock()
    restarted = Client(scene.lab, port=scene.client.port)
    scene.client.log.close()
    scene.client.process.stdout.close()  # type: ignore[union-attr]
    scene.client.__dict__.update(restarted.__dict__)


def laptop_slept(scene: Scene) -> None:
    """Stop the client, and ITK-SNAP with it, for so long that the host has closed its connection."""
    with scene.polls.stopped():
        scene.client.process.send_signal(signal.SIGSTOP)
        with scene.lab.filtered("-j", "DROP"):
            time.sleep(20)
        scene.lab.signal_sshd(signal.SIGKILL)
        scene.client.process.send_signal(signal.SIGCONT)
    scene.start_clock()


def ended(scene: Scene) -> None:
    """End the server as `dls stop` does on another computer; the next click starts it again."""
    pid = scene.lab.server()
    os.kill(pid, signal.SIGTERM)
    while not is_gone(pid):
        time.sleep(0.02)
    time.sleep(6)  # until the client has seen it
    assert any("was ended" in str(event.get("text")) for event in scene.client.events)
    assert scene.work.snap.get("/status").status == 200
    scene.start_clock()


FAULTS = (
    Fault("packets dropped for 5 s", outage(dropped, 5)),
    Fault("packets dropped for 20 s", outage(dropped, 20), slow=True),
    Fault("packets dropped for 2 min", outage(dropped, 120), slow=True),
    Fault("connections reset for 3 s", outage(reset, 3)),
    Fault("interface down for 20 s", outage(Lab.cable_out, 20), slow=True),
    Fault("SSH server stopped for 25 s", outage(stopped_sshd, 25), slow=True),
    Fault("5 % of packets lost, 100 ms of delay", lossy, slow=True, delay=0.05),
    Fault("SSH server's child killed", sshd_child_killed),
    Fault("SSH server restarted", sshd_restarted),
    Fault("host name moved to another address", moved, slow=True),
    Fault("server killed while idle", killed),
    Fault("server killed during an upload", killed_while(lambda s: s.work.upload(), is_upload_running), side=192),
    Fault("server killed during a prediction", computing, side=128),
    Fault("server killed when a prompt was written", written),
    Fault("engine killed for lack of memory", out_of_memory),
    Fault("server stopped", stopped, slow=True),
    Fault("server ended on purpose", ended),
    Fault("socket file deleted", socket_deleted),
    Fault("server's port taken", port_taken, sshd="AllowStreamLocalForwarding no"),
    Fault("run directory cleaned away", tmp_cleaned),
    Fault("client killed and started again", client_killed, client_ends=True),
    Fault("laptop asleep", laptop_slept, slow=True),
)
