"""The lab for all tests here, and the servers of its internet.

They end with the last test here, not with the session: another run waits for the lab's lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.closed import lab as labs
from tests.closed import web as webs
from tests.closed.lab import Lab
from tests.closed.web import Web


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    """The lab."""
    if why := labs.why_impossible():
        pytest.skip(why)
    with Lab.create(webs.public_names()) as created:
        yield created


@pytest.fixture(scope="package")
def web(lab: Lab) -> Iterator[Web]:
    """The web servers of the lab's internet."""
    packages = webs.collect_packages()
    with webs.serving(lab, packages) as serving:
        yield serving


@pytest.fixture(scope="package")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the parcels, each of which is made once."""
    return tmp_path_factory.mktemp("parcels")
