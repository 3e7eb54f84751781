"""A link that is cut in the middle of a loan or of a parcel: the second connect goes on where the first one ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.closed.lab import USER, Lab
from tests.closed.ways import Laptop, Way
from tests.closed.web import Web
from tests.support.processes import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MIB = 1 << 20
FEW_FILES = 8
"""Files that the host has before the link is cut: uv, and the smallest of the packages."""
UNDERWAY = 40 * MIB
"""More bytes than can be on the way at once, in SSH's windows and the pipes before and behind them."""


@pytest.fixture
def laptop(lab: Lab, web: Web, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """The laptop of the way that is the parameter."""
    made = Laptop(lab, request.param, tmp_path)
    yield made
    made.remove()


def connect_and_cut(laptop: Laptop, is_time: Callable[[], object], *options: object) -> str:
    """Connect, end the host's side of the SSH connection when it is time, and return what was said then."""
    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(laptop.try_to_connect, *options)
        until(lambda: trying.done() or is_time(), 240)
        assert not trying.done(), trying.result()
        processes = laptop.node_of_host.run("ps", "-u", USER, "-o", "pid=,comm=").splitlines()
        for pid, name in map(str.split, processes):
            if name.startswith("sshd"):
                laptop.node_of_host.try_to("kill", "-KILL", pid)
        done = trying.result()
    assert done.returncode and "Traceback" not in done.stderr, done.stderr
    assert "Error:" in done.stderr and "Hint:" in done.stderr, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "laptop", [Way(laptop="office"), Way("isolated", "disabled", "office")], ids=str, indirect=True
)
def test_a_loan(laptop: Laptop, web: Web) -> None:
    """No file that the host has whole is fetched again."""
    start, kept, proxy = len(web.index.finished), set[str](), laptop.lab.proxy
    enough = 0

    def is_time() -> bool:
        nonlocal enough
        if not kept and len(web.index.finished) >= start + FEW_FILES:
            kept.update(web.index.finished[start:])
            enough = web.index.bytes_sent + UNDERWAY
        return bool(kept) and web.index.bytes_sent > enough

    consent = laptop.way.consent
    with proxy.slowed(4 * MIB):
        connect_and_cut(laptop, is_time, "--lend-network", *consent)
    assert len(web.index.finished) < start + len(web.index.files()) - 1
    second = len(web.index.finished)
    with laptop.connected("--lend-network", *consent) as process:
        laptop.click(process)
    again = web.index.finished[second:]
    assert again and not kept & set(again), (kept, again)


@pytest.mark.parametrize("laptop", [Way(), Way("isolated", "disabled")], ids=str, indirect=True)
def test_a_parcel(laptop: Laptop, parcels: Path) -> None:
    """What the host has of the parcel is not sent again."""
    parcel = parcels / "plain.parcel"
    if not parcel.exists():
        laptop.pack(parcel)
    size, start = parcel.stat().st_size, laptop.sent_bytes()
    consent = laptop.way.consent
    connect_and_cut(laptop, lambda: laptop.sent_bytes() - start > size // 4, "--from", parcel, *consent)
    middle = laptop.sent_bytes()
    assert middle - start < size
    with laptop.connected("--from", parcel, *consent) as process:
        laptop.click(process)
    assert laptop.sent_bytes() - start < size * 1.05 + UNDERWAY
