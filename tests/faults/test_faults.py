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
    with Lab.create(remote_dir) as built:
        yield built


@pytest.mark.parametrize(
    "fault", [pytest.param(f, id=f.name, marks=[pytest.mark.slow] if f.slow else []) for f in FAULTS]
)
def test_work_goes_on(lab: Lab, fault: Fault) -> None:
    """The next click gives the same mask as without the fault, voxel for voxel, and nobody has to do anything.

    Polls of `/status` succeed all the time, but for the time in which nobody listens.
    """
    [outcome] = catalogue.run_fault(lab, fault)
    assert outcome.lost == ()
    assert outcome.failing == 0 or fault.client_ends


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_at_once_while_the_server_is_killed(lab: Lab) -> None:
    """Sixteen sessions of four clients lose nothing, and no mask is wrong; `bench/faults --region --soak 10` lasts."""
    result = soak.run(lab, lambda so_far: so_far.kills > 1 and so_far.clicks > 100)
    assert result.lost == []
