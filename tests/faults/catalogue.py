"""The faults by name, and what comes of each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.connect import Client
from tests.faults.injections import (
    Computing,
    Uploading,
    Written,
    client_killed,
    dropped,
    ended,
    killed,
    killed_while,
    laptop_slept,
    lossy,
    moved,
    out_of_memory,
    outage,
    port_taken,
    reset,
    socket_deleted,
    sshd_child_killed,
    sshd_restarted,
    stopped,
    stopped_sshd,
    tmp_cleaned,
)  # fmt: skip
from tests.faults.lab import Lab
from tests.faults.polls import polling
from tests.faults.scene import Scene
from tests.faults.work import ItkSnapWork, Work

NNINTERACTIVE = ("--engine", "nninteractive", "--model", str(Path(__file__).parents[1] / "tiny_model" / "model"))
"""Options of `dls connect` for a lab in which both clients work."""
Players = Callable[[int, int], list[Work]]
"""Makes the annotators of a fault, from the local port and the side of their images in voxels."""


def with_itksnap(port: int, side: int) -> list[Work]:
    """Return an annotator with ITK-SNAP, on a server with the region engine."""
    return [ItkSnapWork(port, side)]


def with_both_clients(port: int, side: int) -> list[Work]:
    """Return one with ITK-SNAP and one with the official client, on a server with nnInteractive."""
    from tests.faults.official import OfficialWork

    return [ItkSnapWork(port, side, model="nnInteractive"), OfficialWork(port, side)]


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
    """Whether `dls connect` itself ends, so that nobody listens for a while and a click would fail too."""


@dataclass(frozen=True)
class Outcome:
    """What came of a fault for one annotator."""

    client: str
    seconds: float
    """Seconds until the next click was answered."""
    lost: tuple[str, ...]
    failing: float
    """Seconds in which a poll of `/status` or a heartbeat failed, or was not answered soon."""
    repeats: tuple[str, ...] = ()
    """What was shown before a person made a call again."""


def run_fault(lab: Lab, fault: Fault, players: Players = with_itksnap) -> list[Outcome]:
    """Cause the fault while annotators work, and compare the next masks with those of an engine without faults."""
    if fault.sshd:
        lab.stop_sshd()
        lab.start_sshd(fault.sshd)
    with contextlib.ExitStack() as stack:
        if fault.delay:
            stack.enter_context(lab.delayed(fault.delay))
        return _run_in_lab(lab, fault, players)


def _run_in_lab(lab: Lab, fault: Fault, players: Players) -> list[Outcome]:
    client = Client(lab)
    works: list[Work] = []
    try:
        works += players(client.port, fault.side)
        for work in works:
            work.begin().check()
        with contextlib.ExitStack() as stack:
            polls = [stack.enter_context(polling(client.port, work.poll)) for work in works]
            scene = Scene(lab, client, works, polls)
            scene.start_clock()
            fault.inject(scene)
            scene.finish()
        return [
            Outcome(work.client, scene.seconds[work.client], tuple(work.lost), poll.failing, tuple(work.repeats))
            for work, poll in zip(works, polls, strict=True)
        ]
    finally:
        for work in works:
            work.close()
        client.close()
        if fault.sshd:
            lab.stop_sshd()
            lab.start_sshd()


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
    Fault("server killed during an upload", killed_while(lambda work: work.upload(), Uploading), side=192),
    Fault("server killed during a prediction", killed_while(lambda work: work.click(), Computing), side=128),
    Fault("server killed when a prompt was written", killed_while(lambda work: work.click(), Written)),
    Fault("engine killed for lack of memory", out_of_memory),
    Fault("server stopped", stopped, slow=True),
    Fault("server ended on purpose", ended),
    Fault("socket file deleted", socket_deleted),
    Fault("server's port taken", port_taken, sshd="AllowStreamLocalForwarding no"),
    Fault("run directory cleaned away", tmp_cleaned),
    Fault("client killed and started again", client_killed, client_ends=True),
    Fault("laptop asleep", laptop_slept, slow=True),
)
