"""Faults of the catalogue while the official client of nnInteractive's own protocol works beside ITK-SNAP."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import kept_in
from tests.faults import catalogue
from tests.faults.catalogue import FAULTS, NNINTERACTIVE, Fault, with_both_clients
from tests.faults.lab import Lab, is_possible
from tests.support.host_environment import lend_packages
from tests.support.nninteractive import IGNORED_WARNINGS

NAMES = (
    "packets dropped for 2 min",
    "connections reset for 3 s",
    "SSH server stopped for 25 s",
    "server killed during an upload",
    "server killed during a prediction",
    "server killed when a prompt was written",
    "engine killed for lack of memory",
    "server ended on purpose",
    "client killed and started again",
)
"""Those that differ for this client; `bench/faults` runs all."""
pytestmark = [
    *IGNORED_WARNINGS,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and iptables"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab whose host has nnInteractive and the tiny model."""
    folder = Path(tempfile.mkdtemp(prefix="dls-n-"))
    remote_dir = f"{folder}/host"
    lend_packages(remote_dir)
    with Lab.create(remote_dir, *NNINTERACTIVE) as built:
        yield built
    subprocess.run(["pkill", "-f", f"launch-file {folder}/"], check=False)
    for place in (folder, *kept_in(remote_dir)):
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in FAULTS if fault.name in NAMES])
def test_both_clients_go_on(lab: Lab, fault: Fault) -> None:
    """The next masks of both are those without the fault, no lease is refused, and no poll or heartbeat fails.

    Heartbeats and polls fail only while nobody listens. After two minutes without a link the person tries again.
    """
    outcomes = catalogue.run_fault(lab, fault, with_both_clients)
    assert [outcome.client for outcome in outcomes] == ["ITK-SNAP", "official client"]
    for outcome in outcomes:
        assert outcome.lost == (), outcome.client
        assert outcome.failing == 0 or fault.client_ends, outcome.client
        assert not outcome.repeats or "2 min" in fault.name or fault.client_ends, outcome.client


def test_the_names_are_in_the_catalogue() -> None:
    """Each of NAMES is a fault."""
    assert set(NAMES) <= {fault.name for fault in FAULTS}
