"""Each fault of the catalogue, injected while libcurl plays ITK-SNAP through `dls connect` over OpenSSH."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import catalogue, soak
from tests.faults.catalogue import FAULTS, Fault
from tests.faults.lab import Lab, is_possible

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs root, iproute2 and iptables")


@pytest.fixture(scope="module")
def lab(remote_dir: str) -> Iterator[Lab]:
    with Lab.built(remote_dir) as built:
        yield built


@pytest.mark.parametrize(
    "fault", [pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.slow else []) for f in FAULTS]
)
def test_work_goes_on(lab: Lab, fault: Fault) -> None:
    """The next click gives, voxel for voxel, what it would have given; nobody has to do anything."""
    outcome = catalogue.meet(lab, fault)
    assert outcome.lost == ()


@pytest.mark.slow
def test_many_at_once_while_the_server_is_killed(lab: Lab) -> None:
    """Sixteen sessions of four clients: no wrong mask, no lost session (bench/faults --soak 10 is the long one)."""
    gone = soak.run(lab, 30)
    assert gone.lost == [] and gone.clicks > 100 and gone.kills > 1
