"""The weights, fetched over a loan by the code of dls on the host."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dls
from dls.errors import EngineError
from dls.remote.host.install import InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.loan.indexes import Indexes
from dls.remote.loan.laptop import Laptop, read_bundles
from dls.remote.loan.loan import Loan, lend
from dls.remote.loan.model import fetch_weights
from dls.remote.loan.names import Name
from dls.remote.progress import Phase, Silent
from dls.remote.ssh.connection import Connection
from tests.support import model_hub
from tests.support.lending import terms

pytest.importorskip("nnInteractive")


class Texts(Silent):
    """Remembers what a phase said."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def update(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[model_hub.Hub]:
    """A hub with the tiny model."""
    with model_hub.running(tmp_path, model_hub.tiny_files()) as hub:
        yield hub


@pytest.fixture
def loan(connection: Connection, hub: model_hub.Hub) -> Iterator[Loan]:
    """A loan of the hub, to a host whose settings lead elsewhere."""
    bundle = read_bundles({"SSL_CERT_FILE": str(hub.certificate)})
    laptop = Laptop(Indexes("https://index.test/"), ca_bundle=bundle, hub=hub.url)
    names = Name("localhost", hub.port, is_own=True)
    with lend(connection, terms(names, laptop=laptop), phase=Phase(Silent())) as loan:
        yield loan


def plan(folder: Path) -> InstallPlan:
    """Return the plan of a host that has the packages of the tests and this code."""
    return InstallPlan(
        environment=sys.prefix, code=str(Path(dls.__file__).parents[1]), make_environment=False, send_code=False,
        requirements=requirements("nninteractive"), run_dir=str(folder / "run"), remote_key="k", root=str(folder),
    )  # fmt: skip


def test_weights_over_a_loan(connection: Connection, loan: Loan, hub: model_hub.Hub, short_folder: Path) -> None:
    """The weights come once, with their licence and their progress; a second time nobody is asked."""
    options = ServerOptions(engine="nninteractive", models_path=str(short_folder / "models"))
    reporter = Texts()
    notes = fetch_weights(connection, plan(short_folder), options, loan, Phase(reporter))
    assert len(notes) == 1 and "Licence" in notes[0] and "cite" in notes[0]
    assert any(f"downloading {model_hub.TINY_NAME}" in text for text in reporter.texts)
    assert loan.traffic.received > sum(map(len, hub.files.values())) and hub.requests
    asked = len(hub.requests)
    assert fetch_weights(connection, plan(short_folder), options, loan, Phase(reporter)) == []
    assert len(hub.requests) == asked


def test_weights_that_can_not_be_had(connection: Connection, loan: Loan, short_folder: Path) -> None:
    """A model that the hub does not have is refused in its words, with what it has."""
    options = ServerOptions(engine="nninteractive", model="absent", models_path=str(short_folder / "models"))
    with pytest.raises(EngineError, match="absent"):
        fetch_weights(connection, plan(short_folder), options, loan, Phase(Silent()))


def test_a_server_that_fetches_nothing(connection: Connection, loan: Loan, hub: model_hub.Hub) -> None:
    """Nothing is fetched for the region engine, and with --no-network."""
    for options in (ServerOptions(engine="region"), ServerOptions(engine="nninteractive", network=False)):
        assert fetch_weights(connection, plan(Path("/nonexistent")), options, loan, Phase(Silent())) == []
    assert not hub.requests
