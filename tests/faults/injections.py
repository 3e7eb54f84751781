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
from pathlib import Path

from tests.faults.connect import Client
from tests.faults.lab import HOST, OTHER, Lab
from tests.faults.scene import Scene
from tests.faults.work import Work
from tests.support.itksnap import ItkSnap
from tests.support.processes import is_gone, until

Condition = Callable[[Scene, Work], bool]
"""Whether it is time to cause the fault, while an annotator works."""


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
    """Return a fault that breaks the link for so long.

    Those annotators click meanwhile whose program waits that long, and those who try again when it does not.
    """

    def inject(scene: Scene) -> None:
        with break_link(scene.lab):
            for work in scene.works:
                if seconds < 50 or work.tries_again:
                    scene.begin_click(work)
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
            scene.click()
        scene.start_clock()
        scene.click()


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
    with scene.lab.filtered("-d", HOST, "-j", "DROP"):
        scene.click()
    scene.lab.move_to(HOST)


MOST_TRIES = 20
"""Number of times that some work is done until the server is killed in the middle of it."""


def killed(scene: Scene) -> None:
    os.kill(scene.lab.server(), signal.SIGKILL)


def killed_while(act: Callable[[Work], None], make_condition: Callable[[], Condition]) -> Callable[[Scene], None]:
    """Return a fault that kills the server when a condition holds during some work, once for each annotator."""

    def inject(scene: Scene) -> None:
        for work in scene.works:
            if not any(kill_during(scene, work) for _ in range(MOST_TRIES)):
                work.lost.append("it was over each time before the server could be killed")
            scene.next_answer(work)

    def kill_during(scene: Scene, work: Work) -> bool:
        """Let the work be done, and return whether the server was killed during it: the moment may be missed."""
        server, is_time = scene.lab.server(), make_condition()
        with in_background(lambda: act(work)) as thread:
            while thread.is_alive() and not is_time(scene, work):
                time.sleep(0.0005)
            if not thread.is_alive():
                return False
            scene.start_clock()
            os.kill(server, signal.SIGKILL)
            return True

    return inject


def stored(scene: Scene, work: Work, name: str) -> list[Path]:
    """Return the files of a session with such a name."""
    return [path for root in scene.lab.session_folders for path in root.glob(f"{work.session}/{name}")]


class Uploading:
    """Whether the server is receiving a second image."""

    def __call__(self, scene: Scene, work: Work) -> bool:
        return bool(stored(scene, work, "part-*"))


class Written:
    """Whether a prompt has been written to the journal; its answer has not been sent yet."""

    def __init__(self) -> None:
        self.before: int | None = None

    def __call__(self, scene: Scene, work: Work) -> bool:
        size = max((path.stat().st_size for path in stored(scene, work, "prompts-*")), default=0)
        if self.before is None:
            self.before = size
        return size > self.before


class Computing:
    """Whether the engine has used some processor time for a prompt."""

    def __init__(self) -> None:
        self.before: int | None = None

    def __call__(self, scene: Scene, work: Work) -> bool:
        fields = Path(f"/proc/{scene.lab.engine()}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        if self.before is None:
            self.before = ticks
        return ticks - self.before > 3


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
        scene.click()
    finally:
        taker.kill()
        taker.wait()


def client_killed(scene: Scene) -> None:
    """Kill the client and start another one on the same port."""
    scene.client.kill()
    scene.start_clock()
    scene.client.__dict__.update(Client(scene.lab, port=scene.client.port).__dict__)


def laptop_slept(scene: Scene) -> None:
    """Stop the client, and ITK-SNAP with it, for so long that the host has closed its connection."""
    with scene.without_polls():
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
    until(lambda: any("was ended" in str(event.get("text")) for event in scene.client.events), 60)
    assert ItkSnap(scene.client.port).get("/status").status == 200
    scene.start_clock()
