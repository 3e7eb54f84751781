"""The link's states and events: the whole table, and what each event does to the link."""

from __future__ import annotations

import threading

import pytest

from dls.errors import LinkError
from dls.remote.tunnel.link import (
    TRANSITIONS,
    Closed,
    Connected,
    ConnectionLost,
    Failed,
    GaveUp,
    Link,
    LinkClosed,
    LinkEvent,
    LinkState,
    ServerLost,
    ServerStopped,
    next_state,
)
from tests.support.http_server import LiveServer
from tests.support.processes import until
from tests.support.proxied_server import CuttableChannel, LocalEndpoint

OPEN, LOST, ASLEEP, CLOSED = LinkState.OPEN, LinkState.LOST, LinkState.ASLEEP, LinkState.CLOSED
OTHER = LocalEndpoint(0)
EVENTS: tuple[LinkEvent, ...] = (
    Connected(OTHER),
    ConnectionLost("lost"),
    ServerLost("gone"),
    ServerStopped(OTHER, "stopped"),
    Failed("failed"),
    GaveUp("hopeless"),
    Closed(),
)
EXPECTED: dict[LinkState, tuple[LinkState | type[Exception], ...]] = {
    OPEN: (OPEN, LOST, LOST, ASLEEP, LOST, CLOSED, CLOSED),
    LOST: (OPEN, LOST, LOST, ASLEEP, LOST, CLOSED, CLOSED),
    ASLEEP: (OPEN, LOST, RuntimeError, ASLEEP, LOST, CLOSED, CLOSED),
    CLOSED: (LinkClosed, LinkClosed, LinkClosed, LinkClosed, LinkClosed, LinkClosed, CLOSED),
}
"""What follows on each event, in the order of EVENTS."""
PATHS: dict[LinkState, tuple[LinkEvent, ...]] = {
    OPEN: (),
    LOST: (ConnectionLost("first"),),
    ASLEEP: (ConnectionLost("first"), ServerStopped(OTHER, "first")),
    CLOSED: (Closed(),),
}
"""The events that lead to each state from the beginning."""


def link_in(state: LinkState) -> Link:
    """Make a link and lead it into the state."""
    link = Link(LocalEndpoint(0), pool_size=0)
    for event in PATHS[state]:
        link.handle(event)
    assert link.state is state
    return link


@pytest.mark.parametrize("state", LinkState)
@pytest.mark.parametrize("number", range(len(EVENTS)), ids=[type(event).__name__ for event in EVENTS])
def test_every_event_in_every_state(state: LinkState, number: int) -> None:
    """The link goes to the state of the table; an event that is not allowed raises and changes nothing."""
    event, expected = EVENTS[number], EXPECTED[state][number]
    link = link_in(state)
    before = (link.state, link.endpoint, link.reason)
    if not isinstance(expected, LinkState):
        with pytest.raises(expected):
            link.handle(event)
        assert (link.state, link.endpoint, link.reason) == before
        return
    link.handle(event)
    assert link.state is expected
    assert link.reason == ("" if isinstance(event, Connected) else event.reason)
    assert (link.endpoint is OTHER) == (state is ASLEEP or isinstance(event, Connected | ServerStopped))


def test_the_table_is_complete() -> None:
    """Each state has a row, and each event leads somewhere from at least one state."""
    assert set(TRANSITIONS) == set(LinkState)
    assert {kind for row in TRANSITIONS.values() for kind in row} == {type(event) for event in EVENTS}
    assert next_state(OPEN, EVENTS[0]) is OPEN


@pytest.mark.parametrize("state", [LOST, ASLEEP])
def test_a_request_waits_until_the_link_is_open(state: LinkState, live: LiveServer) -> None:
    """Waiting is noted as demand and wakes the supervisor; the channel then leads to the new endpoint."""
    link, endpoint = link_in(state), LocalEndpoint(live.port)
    results = []
    thread = threading.Thread(target=lambda: results.append(link.open_channel(30)))
    thread.start()
    until(lambda: link.demand)
    assert link.wake.is_set()
    link.handle(Connected(endpoint))
    thread.join()
    assert results == endpoint.channels and not link.demand
    results[0].close()


def test_closing_ends_the_waiting() -> None:
    """A request that waits for a lost link fails when the session is closed."""
    link = link_in(LOST)
    errors = []

    def wait() -> None:
        with pytest.raises(LinkError) as caught:
            link.open_channel(300)
        errors.append(caught.value.message)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: link.demand)
    link.handle(Closed())
    thread.join(30)
    assert errors == ["The connection is closed."]


def test_a_status_request_is_no_demand() -> None:
    """It fails at once with the reason, and wakes the supervisor without starting a server that is asleep."""
    link = link_in(ASLEEP)
    with pytest.raises(LinkError, match="first"):
        link.open_channel(0)
    assert link.wake.is_set() and not link.demand


def test_no_channel_is_waited_for(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a link that carries nothing, a channel can't be closed: the link is closed all the same."""
    may_close, closed = threading.Event(), threading.Event()

    def close(channel: CuttableChannel) -> None:
        assert may_close.wait(30)
        closed.set()

    link = Link(endpoint := LocalEndpoint(live.port), pool_size=1)
    link.pool.refill()
    until(lambda: endpoint.channels)
    until(lambda: not link.pool._is_filling)
    with monkeypatch.context() as patch:
        patch.setattr(CuttableChannel, "close", close)
        link.handle(Closed())
        assert link.state is CLOSED and not closed.is_set()
        may_close.set()
        assert closed.wait(30)
    endpoint.channels[0].close()
