"""The client of nnInteractive's own protocol through `dls connect`: every method, keys, and what a lost link does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

import dls
from dls.demo import sshd
from dls.remote.tunnel.proxy import Proxy
from dls.server.engines.seeding import seed_prediction
from tests.remote.tunnel.test_clock import processes_of_connection
from tests.support.connecting import connected
from tests.support.host_environment import lend_packages
from tests.support.itksnap import ItkSnap
from tests.support.nninteractive import IGNORED_WARNINGS, MODEL
from tests.support.official_client import (
    CENTER,
    IMAGE,
    LEFT,
    RIGHT,
    STEPS,
    WIDE,
    WIDE_SHAPE,
    assert_same,
    library,
    open_client,
    play,
    point,
)
from tests.support.processes import until
from tests.support.proxied_server import local_port

pytestmark = [*IGNORED_WARNINGS, pytest.mark.slow, pytest.mark.timeout(300)]

SECRET = "open-sesame"
SHORT = ["point", "lasso", "last point"]


@pytest.fixture(scope="module")
def torch_host() -> Iterator[tuple[sshd.Server, str]]:
    """An SSH server, and a remote directory with an environment that has torch."""
    folder = Path(tempfile.mkdtemp(prefix="dls-t-"))
    with sshd.running(folder) as host:
        lend_packages(f"{folder}/host")
        yield host, f"{folder}/host"
    shutil.rmtree(folder, ignore_errors=True)


def opened(torch_host: tuple[sshd.Server, str], secret: bool | str = False) -> dls.Session:
    """Connect to the one server that all tests here share."""
    return connected(*torch_host, local_secret=secret, engine="nninteractive", model=str(MODEL), network=False)[0]


@pytest.fixture(scope="module")
def session(torch_host: tuple[sshd.Server, str]) -> Iterator[dls.Session]:
    opened_session = opened(torch_host)
    yield opened_session
    opened_session.close(stop_server=True)


@pytest.fixture(scope="module")
def expected() -> dict[str, list[np.ndarray]]:
    """The masks of the library called directly: after all steps, and after the few of SHORT."""
    with library() as whole, library() as short:
        return {"all": play(whole), "short": play(short, SHORT)}


def test_every_method(session: dls.Session, expected: dict[str, list[np.ndarray]]) -> None:
    """Masks equal those of the library called directly, after each step; the lease is known until it is released."""
    with open_client(session.port) as client:
        assert_same(play(client), expected["all"])
        assert client.ping() and 0 < client.heartbeat() <= 7 * 86400
        assert set(client.lease_status()) == {"remaining_seconds", "idle_timeout_seconds"}
        assert set(client.supported_interactions) and client.supports_undo
        lease = client._lease_token
    answer = httpx.get(f"http://127.0.0.1:{session.port}/lease_status", headers={"X-Lease-Token": lease})
    assert answer.status_code == 410 and isinstance(answer.json()["detail"], str)


def test_eight_clients_beside_itk_snap(session: dls.Session, expected: dict[str, list[np.ndarray]]) -> None:
    """Each has its own session, and many heartbeats meanwhile; none waits for a connection or meets another."""

    def work() -> None:
        with open_client(session.port) as client:
            beats = threading.Thread(target=lambda: [client.heartbeat() for _ in range(40)])
            beats.start()
            assert_same(play(client, SHORT), expected["short"], SHORT)
            beats.join()

    snap = ItkSnap(session.port)
    snap.start("nnInteractive")
    assert snap.upload(IMAGE).status == 200
    with ThreadPoolExecutor(8) as pool:
        works = [pool.submit(work) for _ in range(8)]
        for _ in range(3):
            assert snap.get("/status").json["status"] == "ok"
            assert snap.mask(snap.point(*CENTER)).any()
        for each in works:
            each.result()


@pytest.mark.parametrize("key", [None, "an-old-key", "an odd, old: key="])
def test_any_key_where_none_is_needed(session: dls.Session, key: str | None) -> None:
    """What stands in a viewer's field from before is no reason to refuse it; ITK-SNAP's Server field is one too."""
    with open_client(session.port, key=key) as client:
        assert STEPS["point"](client) is not None
    assert ItkSnap(session.port, "snap:an-old-secret@127.0.0.1").get("/v2/models").status == 200


def test_the_key_of_a_port_with_a_secret(torch_host: tuple[sshd.Server, str], session: dls.Session) -> None:
    """It is the secret that the panel shows; without it there is a sentence, which says that the secret is the key."""
    with opened(torch_host, SECRET) as guarded:
        with open_client(guarded.port, key=SECRET) as client:
            assert STEPS["point"](client) is not None
        for wrong in (None, "wrong"):
            with pytest.raises(httpx.HTTPStatusError) as caught:
                open_client(guarded.port, key=wrong)
            assert caught.value.response.status_code == 401
            assert "API key" in caught.value.response.json()["detail"]
        client = httpx.Client(base_url=guarded.url)  # with the secret as Basic credentials
        assert client.get("/capabilities").status_code == 200
        client.close()


def prompts_under_way() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dls-official"]


@pytest.mark.parametrize("what", ["link", "server"])
def test_what_ends_in_the_middle_of_a_prompt(
    session: dls.Session, expected: dict[str, list[np.ndarray]], what: str
) -> None:
    """The prompt is answered all the same, and applied once: the masks from then on are those of the library."""
    with open_client(session.port) as client:
        masks = play(client, SHORT[:1])
        connection, server = session.connection, session.state.pid
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(play, client, SHORT[1:])
            until(prompts_under_way)
            for pid in processes_of_connection(session) if what == "link" else [server]:
                os.kill(pid, signal.SIGKILL)
            masks += rest.result()
        assert_same(masks, expected["short"], SHORT)
        until(lambda: session.connection is not connection if what == "link" else session.state.pid != server)


@contextlib.contextmanager
def frozen(session: dls.Session) -> Iterator[None]:
    """Stop the processes of sshd that carry the connection, which ends nothing and answers nothing."""
    pids = processes_of_connection(session)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def test_a_frozen_link_is_answered_in_time(session: dls.Session, expected: dict[str, list[np.ndarray]]) -> None:
    """A prompt ends in 504 with a sentence before its client gives up, heartbeats go on, and so does the session."""
    proxy = Proxy(session._link, official_timeout=8.0)
    with local_port(proxy) as port, open_client(port, read_timeout=30) as client:
        play(client, SHORT[:1])
        before = session.connection
        with frozen(session):
            with pytest.raises(httpx.HTTPStatusError) as caught:
                STEPS["reset"](client)
            assert caught.value.response.status_code == 504
            assert caught.value.response.json()["detail"].endswith(".")
            assert client.heartbeat() > 0 and client.ping()
            until(lambda: session.is_up and session.connection is not before)
        STEPS["reset"](client)
        assert_same(play(client, SHORT), expected["short"], SHORT)


def test_a_prompt_outlasts_a_frozen_link(session: dls.Session, expected: dict[str, list[np.ndarray]]) -> None:
    """It is sent again over the next connection, well before its client gives up."""
    with open_client(session.port) as client:
        masks = play(client, SHORT[:2])
        with frozen(session):
            masks += play(client, SHORT[2:])
        assert_same(masks, expected["short"], SHORT)


@pytest.mark.parametrize("waits", [True, False], ids=["later", "at once"])
def test_the_next_prompts_of_a_client_that_gave_up(session: dls.Session, waits: bool) -> None:
    """Their answers bring the box of the answer that was missed too, also where that was still computed."""
    with library(WIDE) as session_of_library:
        seed_prediction()
        point(LEFT)(session_of_library)
        expected = np.array(session_of_library.target_buffer)

    def last_prompt() -> float | None:
        """Return what tells the server's last prompt from others: its seconds."""
        answer = session.ask_facts()
        return answer[1].last.whole if answer and answer[1].last else None

    with open_client(session.port, WIDE) as client:
        before = last_prompt()
        patient, client._http.timeout = client._http.timeout, httpx.Timeout(10, read=0.001)
        with pytest.raises(httpx.ReadTimeout):
            point(LEFT)(client)
        client._http.timeout = patient
        if waits:
            until(lambda: last_prompt() not in (None, before))
            until(lambda: not prompts_under_way())
        assert not client.target_buffer.any()
        point(RIGHT)(client)
        if not waits:  # the server may have come to this prompt first
            point(RIGHT)(client)
        left = np.s_[:, :, : WIDE_SHAPE[2] // 2]
        np.testing.assert_array_equal(client.target_buffer[left], expected[left])
        assert client.target_buffer[RIGHT]
