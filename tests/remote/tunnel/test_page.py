"""The page at the local port: what this side knows, what the server says, and how it goes on while the link is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dls.remote.tunnel import page
from dls.remote.tunnel.link import Closed, Connected, ConnectionLost, Failed, GaveUp
from dls.remote.tunnel.page import PageFacts
from dls.server.sessions.folders import Folders
from dls.server.sessions.store import SessionStore
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.page_client import PageClient
from tests.support.processes import until
from tests.support.proxied_server import ProxiedServer, proxied
from tests.support.synthetic import ellipsoid, noisy

TRUTH = ellipsoid((30, 40, 50), (15, 20, 25), (8, 9, 10))
FACTS = PageFacts("ann@gpuhost")


@pytest.fixture
def server(short_folder: Path) -> Iterator[ProxiedServer]:
    """A server behind a local port with a page, reached as `dls connect` reaches it."""
    store = SessionStore(Folders(short_folder / "own" / "home")).open()
    with serving(socket=str(short_folder / "s"), store=store) as live, proxied(live.socket, page=FACTS) as server:
        yield server


def begun(server: ProxiedServer) -> ItkSnap:
    server.snap.start()
    assert server.snap.upload(noisy(TRUTH, 5, np.random.default_rng(0))).status == 200
    return server.snap


def client_of(server: ProxiedServer) -> PageClient:
    return PageClient.at(server.page_url)


def test_the_page_beside_itk_snap(server: ProxiedServer) -> None:
    """A browser gets the page at `/`; whoever asks for no HTML gets the server's own answer, to the byte."""
    client = client_of(server)
    assert client.get().headers["content-type"] == "text/html; charset=utf-8"
    with_page = server.snap.get("/")
    with proxied(server.endpoint.address) as plain:
        without = plain.snap.get("/")
    assert (with_page.status, with_page.body) == (without.status, without.body) == (404, without.body)


def test_a_click_is_shown_without_being_asked_for(server: ProxiedServer) -> None:
    """An open page is told of a session when its image is there, and of each prompt, with another picture."""
    client = client_of(server)
    with client.events() as states:
        first = next(states)
        assert first["target"] == "ann@gpuhost" and first["link"]["state"] == "open" and first["private"]
        assert first["address"] == {"server": "localhost", "port": server.port, "viewers": False, "secret": ""}
        snap = begun(server)
        [session] = next(state for state in states if state["sessions"])["sessions"]
        assert session["prompts"] == 0
        assert client.get(session["picture"]).headers["content-type"] == "image/png"
        snap.mask(snap.point(15, 20, 25))
        state = next(state for state in states if state["sessions"][0]["prompts"])
        assert state["sessions"][0]["picture"] != session["picture"]
        assert client.get(state["sessions"][0]["picture"]).body.startswith(b"\x89PNG")
        assert state["requests"][0]["kind"] == "point"


def test_nobody_asks_the_server_while_no_page_is_open(server: ProxiedServer) -> None:
    """Without an open page nothing but the client's own requests crosses the link."""
    with client_of(server).events() as states:
        next(state for state in states if state["engine"].get("state") == "ready")
    until(lambda: "dls-page" not in {thread.name for thread in threading.enumerate()})
    before = len(server.endpoint.channels)
    begun(server)
    sent = [channel.sent.split(b" ", 2)[1] for channel in server.endpoint.channels[before:]]
    assert not any(path.startswith(b"/dls/") for path in sent) and len(sent) == 2


def test_an_outage(server: ProxiedServer) -> None:
    """The stream says since when, why, when it is tried again and how many wait; what was known stays, its pictures
    too, also for a page that is loaded now; afterwards it goes on."""
    client = client_of(server)
    snap = begun(server)
    with client.events() as states:
        session = next(state for state in states if state.get("sessions"))["sessions"][0]
        picture = client.get(session["picture"]).body
        server.link.handle(ConnectionLost("The connection was lost."))
        server.link.handle(Failed("gpuhost can't be reached.", 300.0))
        lost = next(state for state in states if state["link"]["next_try"])
        assert lost["link"]["state"] == "lost" and lost["link"]["reason"] == "gpuhost can't be reached."
        assert 200 < lost["link"]["next_try"] - lost["now"] <= 300 and lost["link"]["since"] <= lost["now"]
        assert lost["sessions"] == [session] and 0 < lost["as_of"] <= lost["now"]
        assert client.get(session["picture"]).body == picture
        assert client.get().status == 200
        with client.events() as late:
            assert next(late)["sessions"] == [session]
        click = threading.Thread(target=snap.point, args=(15, 20, 25))
        click.start()
        assert next(state for state in states if state["link"]["waiting"])["link"]["waiting"] == 1
        server.link.handle(Connected(server.endpoint))
        click.join()
        back = next(state for state in states if state["sessions"][0]["prompts"])
        assert back["link"] == {**back["link"], "state": "open", "reason": "", "waiting": 0, "next_try": None}
        assert back["as_of"] == 0


@pytest.mark.parametrize("event", [Closed(), GaveUp("The login was refused.")])
def test_the_end(server: ProxiedServer, event: Any) -> None:
    """The last that the page is told is that it is over, and why; then the stream ends."""
    with client_of(server).events() as states:
        next(states)
        server.link.handle(event)
        *_, last = states
    assert last["link"]["state"] == "closed" and last["link"]["reason"] == event.reason


def test_open_pages_have_a_limit(server: ProxiedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those without the key do not take the places of those with it, and a closed one makes room."""
    monkeypatch.setattr(page, "MAX_STREAMS", 2)
    client, stranger = client_of(server), PageClient(server.port)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            next(stack.enter_context(stranger.events()))
        assert stranger.get("/dls/page/events").status == 429
        next(stack.enter_context(client.events()))
        inner = contextlib.ExitStack()
        next(inner.enter_context(client.events()))
        assert client.get("/dls/page/events").status == 429
        inner.close()
        until(lambda: is_admitted(client))


def is_admitted(client: PageClient) -> bool:
    try:
        client.state()
    except AssertionError:
        return False
    return True


def test_the_secret_of_the_local_port_opens_the_page(server: ProxiedServer) -> None:
    """With it no key is needed, and without it nothing is answered, as for every other request."""
    with proxied(server.endpoint.address, secret="open-sesame", page=FACTS) as secured:
        assert secured.page_url == f"http://localhost:{secured.port}/"
        refused = PageClient(secured.port).get()
        assert refused.status == 401 and refused.headers["www-authenticate"].startswith("Basic ")
        with PageClient(secured.port).events({"Authorization": "Bearer open-sesame"}) as states:
            state = next(states)
        assert state["private"] and state["address"]["server"] == "snap:open-sesame@localhost"


def test_a_server_that_knows_no_page(short_folder: Path) -> None:
    """Of a server of an earlier release, which answers 404, the page shows what this side knows."""
    with serving() as live, proxied(live.port, page=FACTS) as server:  # on the port it says nothing either
        state = client_of(server).state()
        assert state["target"] == "ann@gpuhost" and state["engine"]["name"] == "region" and state["sessions"] == []
