"""The pool of channels that are opened before a request needs one."""

from __future__ import annotations

import threading

import pytest

from dls.remote.tunnel import channel_pool
from dls.remote.tunnel.channel_pool import ChannelPool
from tests.support.http_server import LiveServer
from tests.support.processes import until
from tests.support.proxied_server import LocalEndpoint


def filled(endpoint: LocalEndpoint, failed: threading.Event | None = None) -> ChannelPool:
    """Make a pool of three channels to the endpoint."""
    pool = ChannelPool(3, (failed or threading.Event()).set)
    pool.set_endpoint(endpoint)
    pool.refill()
    return pool


def close(*endpoints: LocalEndpoint) -> None:
    for endpoint in endpoints:
        for channel in endpoint.channels:
            channel.close()


def test_a_channel_that_is_taken_is_replaced(live: LiveServer) -> None:
    """The oldest one is taken, and another one is opened."""
    endpoint = LocalEndpoint(live.port)
    pool = filled(endpoint)
    until(lambda: len(pool) == 3)
    assert pool.take() is endpoint.channels[0]
    pool.refill()
    until(lambda: len(pool) == 3)
    assert len(endpoint.channels) == 4
    close(endpoint)


def test_closed_and_old_channels_are_not_taken(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are closed instead."""
    endpoint = LocalEndpoint(live.port)
    pool = filled(endpoint)
    until(lambda: len(pool) == 3)
    endpoint.channels[0].close()
    assert pool.take() is endpoint.channels[1]
    monkeypatch.setattr(channel_pool, "STALE_SECONDS", 0.0)
    assert pool.take() is None and endpoint.channels[2].is_closed
    close(endpoint)


def test_a_new_endpoint_gets_its_own_channels(live: LiveServer) -> None:
    """The channels to the old one are handed over to be closed; without an endpoint none are opened."""
    first, second = LocalEndpoint(live.port), LocalEndpoint(live.port)
    pool = filled(first)
    until(lambda: len(pool) == 3)
    assert pool.set_endpoint(second) == first.channels
    pool.refill()
    until(lambda: len(pool) == 3)
    assert pool.take() is second.channels[0]
    assert pool.set_endpoint(None) == second.channels[1:]
    pool.refill()
    assert pool.take() is None and len(second.channels) == 3
    close(first, second)


def test_an_endpoint_that_fails_is_reported(live: LiveServer) -> None:
    """The failure is reported once, and the pool can be filled again later."""
    endpoint, failed = LocalEndpoint(live.port), threading.Event()
    endpoint.is_up = False
    pool = filled(endpoint, failed)
    assert failed.wait(30) and len(pool) == 0
    endpoint.is_up = True
    pool.refill()
    until(lambda: len(pool) == 3)
    close(endpoint)
