"""From `dls connect` on a laptop to a click on a host that reaches nothing: by a loan, and by a parcel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.closed.lab import CLOSED, FORWARDING, Lab
from tests.closed.ways import FORBID_ALL, Laptop, Way, listeners
from tests.closed.web import Web

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WAYS = [
    *(Way(host) for host in CLOSED),
    *(Way(forwarding=forwarding) for forwarding in FORWARDING if forwarding != "default"),
    Way("isolated", laptop="office"),
    Way("rejecting", laptop="ward"),
    Way("isolated", "disabled", "office"),
    Way("dropping", "tcp-no", "ward"),
]
"""Each kind of a closed host, each kind of forwarding, each kind of laptop, and the worst of them together."""


@pytest.fixture
def laptop(lab: Lab, web: Web, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """The laptop of the way that is the parameter, which has nothing on the host yet."""
    made = Laptop(lab, request.param, tmp_path)
    yield made
    made.remove()


def parcel_of(laptop: Laptop, folder: Path) -> Path:
    """Return the parcel that was made on this laptop."""
    file = folder / f"{laptop.way.laptop}.parcel"
    if not file.exists():
        laptop.pack(file)
    return file


@pytest.mark.parametrize("laptop", WAYS, ids=str, indirect=True)
def test_by_loan(laptop: Laptop, web: Web) -> None:
    """The host gets what it lacks through the laptop, the click is answered, and nothing listens there any more."""
    before, visits = web.bytes_sent, len(web.visits)
    with laptop.connected("--lend-network", *laptop.way.consent) as process:
        laptop.click(process)
        assert listeners(laptop.lab, laptop.way.host) == set()
    assert web.bytes_sent - before > 50e6 and len(web.visits) == visits


@pytest.mark.parametrize("laptop", WAYS, ids=str, indirect=True)
def test_by_parcel(laptop: Laptop, web: Web, parcels: Path) -> None:
    """The host gets what it lacks from a file that was made on such a laptop, and nobody asks the internet."""
    parcel = parcel_of(laptop, parcels)
    before = web.bytes_sent, len(web.index.requests), len(web.mirror.requests)
    with laptop.connected("--from", parcel, *laptop.way.consent) as process:
        laptop.click(process)
        assert listeners(laptop.lab, laptop.way.host) == set()
    assert (web.bytes_sent, len(web.index.requests), len(web.mirror.requests)) == before


@pytest.mark.parametrize("laptop", [Way(forwarding=each) for each in FORBID_ALL], ids=str, indirect=True)
def test_a_host_that_forbids_it_is_not_overruled(laptop: Laptop, web: Web) -> None:
    """Without `--through-exec`, nothing is lent where the host forbids all forwarding, and the message names it."""
    before = web.bytes_sent
    done = laptop.try_to_connect("--lend-network")
    assert done.returncode in (17, 19) and "--through-exec" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and web.bytes_sent - before < 1e6
    assert not list(laptop.kept.glob("env/*"))
