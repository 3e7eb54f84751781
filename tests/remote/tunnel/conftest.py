"""A live server behind the proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.http_server import LiveServer
from tests.support.proxied_server import ProxiedServer, proxied


@pytest.fixture
def proxied_server(live: LiveServer) -> Iterator[ProxiedServer]:
    """The live server behind a proxy whose channels the test can cut."""
    with proxied(live.port) as server:
        yield server
