"""What official clients get at the local port while the link or the server does not answer, and what they miss."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from dls.remote.tunnel import official_exchange
from dls.remote.tunnel.body_memory import BodyMemory
from dls.remote.tunnel.link import Closed, ConnectionLost
from tests.support.processes import until
from tests.support.proxied_server import ProxiedServer, proxied
from tests.support.scripted_server import NOT_RUN, PASTED, Asked, ScriptedServer, say, scripted

LEASE, OTHER = "0" * 31 + "a", "0" * 31 + "b"
POINT, UNDO, CLAIM = "/add_point_interaction", "/undo", "/claim"
LOST = ConnectionLost("The connection to gpu was lost.")


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def sentence(self) -> str:
        """The sentence of a refusal, which each kind of client finds under its own key."""
        said = json.loads(self.body)
        assert list(said) == ["error", "detail"] and said["error"] == said["detail"]
        assert said["error"].endswith(".")
        return str(said["error"])


def ask(port: int, path: str, lease: str = LEASE, body: bytes = b"{}", **headers: str) -> Reply:
    """Send a request of an official client over a connection of its own."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    method = "GET" if path in ("/capabilities", "/healthz", "/lease_status") else "POST"
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    client.request(method, path, body if method == "POST" else None, {"X-Lease-Token": lease, **more})
    response = client.getresponse()
    reply = Reply(response.status, dict(response.headers), response.read())
    client.close()
    return reply


def ask_and_leave(server: ProxiedServer, script: ScriptedServer, path: str, lease: str = LEASE) -> None:
    """Send a request, and close the connection before the answer comes."""
    before = len(script.asked)
    script.may_answer.clear()
    with server.connect() as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Lease-Token: {lease}\r\n".encode())
        sock.sendall(b"Content-Length: 2\r\n\r\n{}")
        until(lambda: len(script.asked) > before)
    script.may_answer.set()
    until(lambda: all(channel.is_closed for channel in server.endpoint.channels))
    until(lambda: not server.link.traffic.under_way)


@pytest.fixture
def script() -> Iterator[ScriptedServer]:
    with scripted() as server:
        yield server


@pytest.fixture
def local(script: ScriptedServer) -> Iterator[ProxiedServer]:
    """A local port in front of the scripted server, with a request of a client held for up to 20 s."""
    with proxied(script.port, official_timeout=20) as server:
        yield server


def settle(server: ProxiedServer, script: ScriptedServer, *leases: str) -> None:
    """Let each lease have an answer that it pastes: of what was before, the local port knows nothing."""
    for lease in leases:
        assert ask(server.port, POINT, lease).status == 200
    script.asked.clear()


@pytest.fixture
def hasty(script: ScriptedServer) -> Iterator[ProxiedServer]:
    """The same, with a request held for a moment only."""
    with proxied(script.port, official_timeout=1.5) as server:
        yield server


@pytest.mark.parametrize("path", [POINT, UNDO, CLAIM, "/set_image", "/release", "/capabilities", "/predict"])
@pytest.mark.parametrize("cut", [0, 20])
def test_a_cut_answer_is_requested_again(local: ProxiedServer, script: ScriptedServer, path: str, cut: int) -> None:
    """Their client repeats nothing, so the local port does; the name stays the same, and so does the body."""
    local.endpoint.cuts = [cut, cut]
    assert ask(local.port, path).status == 200
    until(lambda: len(script.asked) == 3)
    assert len({asked.headers["X-Dls-Request"] for asked in script.asked}) == 1
    assert [b"X-Dls-Again: 1" in channel.sent for channel in local.endpoint.channels] == [False, True, True]
    assert len({asked.body for asked in script.asked}) == 1


@pytest.mark.parametrize(
    ("path", "status"), [(POINT, 504), ("/capabilities", 504), ("/set_image", 504), (CLAIM, 503), ("/release", 504)]
)
def test_while_the_link_is_lost(hasty: ProxiedServer, path: str, status: int) -> None:
    """A request ends in a sentence before its client gives up, with 503 (there is no place) at a claim only."""
    hasty.link.handle(LOST)
    reply = ask(hasty.port, path)
    assert reply.status == status and "gpu was lost" in reply.sentence
    assert ("Retry-After" in reply.headers) is (path == CLAIM)
    assert hasty.link.demand


def test_a_request_is_held_until_the_link_is_back(local: ProxiedServer, script: ScriptedServer) -> None:
    """It is sent then, and as nothing was lost the server is told of nothing."""
    settle(local, script, LEASE)
    local.link.handle(LOST)
    with local.restored_on_demand():
        assert ask(local.port, POINT).status == 200
    assert not script.asked[0].is_missing


@pytest.mark.parametrize(("path", "status"), [(POINT, 502), (CLAIM, 503)])
def test_after_the_end_of_the_session(local: ProxiedServer, path: str, status: int) -> None:
    """It is refused at once, and the sentence says what to do."""
    local.link.handle(Closed())
    reply = ask(local.port, path)
    assert reply.status == status and "Start dls connect again" in reply.sentence


def test_a_server_that_takes_no_connection(hasty: ProxiedServer) -> None:
    """Before the loss is noticed a request is held no longer than after it."""
    hasty.endpoint.is_up = False
    assert ask(hasty.port, POINT).status == 504


def test_a_server_that_says_nothing(hasty: ProxiedServer, script: ScriptedServer) -> None:
    """A frozen link: 504 in time, with the heartbeats answered meanwhile; what comes later is not sent again."""
    settle(hasty, script, LEASE)
    script.answer = lambda asked: None
    assert ask(hasty.port, "/heartbeat").status == 200
    reply = ask(hasty.port, POINT)
    assert reply.status == 504 and "did not answer in time" in reply.sentence
    assert len([asked for asked in script.asked if asked.path == POINT]) == 1
    script.answer = lambda asked: (200, PASTED, b"box")
    assert ask(hasty.port, POINT).status == 200
    assert script.asked[-1].is_missing


def test_a_request_that_is_cut_each_time(local: ProxiedServer, script: ScriptedServer) -> None:
    """It is given up after five attempts, with 502; the server may have applied it."""
    settle(local, script, LEASE)
    local.endpoint.cuts = [0] * 5
    reply = ask(local.port, POINT)
    assert reply.status == 502 and "middle of this request" in reply.sentence
    assert ask(local.port, POINT).status == 200
    # A copy that was cut may arrive only now.
    assert max(script.asked, key=lambda asked: asked.number).is_missing


def test_a_missed_answer_is_told_until_a_box_was_delivered(local: ProxiedServer, script: ScriptedServer) -> None:
    """Answers that bring no box do not count: the client pastes what predictions give. Other leases miss nothing."""
    settle(local, script, LEASE, OTHER)
    ask_and_leave(local, script, POINT)
    for path, answer, missing in [
        (POINT, say(400, {"error": "x.", "detail": "x."}), True),
        ("/set_do_autozoom", say(200, {}), True),
        ("/predict", (200, NOT_RUN, b""), True),
        (POINT, (200, PASTED, b"box"), True),
        (POINT, (200, PASTED, b"box"), False),
    ]:
        script.answer = lambda asked, answer=answer: answer  # type: ignore[misc]
        assert ask(local.port, POINT, OTHER).status == answer[0] and not script.asked[-1].is_missing
        assert ask(local.port, path).status == answer[0]
        assert script.asked[-1].is_missing is missing, (path, answer)


def test_a_missed_refusal_changes_nothing(local: ProxiedServer, script: ScriptedServer) -> None:
    """The mask is what it was."""
    settle(local, script, LEASE)
    script.answer = lambda asked: say(400, {"error": "x.", "detail": "x."})
    ask_and_leave(local, script, POINT)
    ask(local.port, POINT)
    assert not script.asked[-1].is_missing


def test_a_client_that_sends_its_next_request_ahead(local: ProxiedServer, script: ScriptedServer) -> None:
    """It is not gone, and gets both answers over one connection."""
    settle(local, script, LEASE)
    request = f"POST {POINT} HTTP/1.1\r\nHost: localhost\r\nX-Lease-Token: {LEASE}\r\nContent-Length: 2\r\n\r\n{{}}"
    with local.connect() as sock, sock.makefile("rb") as answers:
        script.may_answer.clear()
        sock.sendall(request.encode())
        until(lambda: script.asked)
        sock.sendall(request.encode())
        script.may_answer.set()
        for _ in range(2):
            assert answers.readline().startswith(b"HTTP/1.1 200")
            while answers.readline() != b"\r\n":
                pass
            assert answers.read(3) == b"box"
    assert [asked.is_missing for asked in script.asked] == [False, False]


def test_a_request_that_follows_an_abandoned_one(local: ProxiedServer, script: ScriptedServer) -> None:
    """A client that did not wait for its answer sends the next prompt while the first one is under way."""
    settle(local, script, LEASE)
    script.may_answer.clear()
    with local.connect() as sock:
        sock.sendall(f"POST {POINT} HTTP/1.1\r\nHost: localhost\r\nX-Lease-Token: {LEASE}\r\n\r\n".encode())
        until(lambda: script.asked)
    thread = threading.Thread(target=ask, args=(local.port, POINT))
    thread.start()
    until(lambda: len(script.asked) == 2)
    script.may_answer.set()
    thread.join()
    assert script.asked[1].is_missing


@pytest.mark.parametrize("path", [POINT, "/status", "/v2/models", "/heartbeat"])
def test_what_clients_say_of_missed_answers_is_not_passed_on(
    local: ProxiedServer, script: ScriptedServer, path: str
) -> None:
    """The header is the local port's own, as are the request's name and credentials."""
    settle(local, script, LEASE)
    ask(local.port, path, X_Dls_Missed="1", X_Dls_Request="mine", Authorization="Bearer old")
    [asked] = script.asked
    assert not asked.is_missing and asked.headers["X-Dls-Request"] != "mine" and "Authorization" not in asked.headers


def test_a_large_answer_arrives_whole(local: ProxiedServer, script: ScriptedServer) -> None:
    """It is passed on byte for byte and only when it is complete: one that breaks in the middle is requested again."""
    data = bytes(range(256)) * (24 << 10)
    script.answer = lambda asked: (200, {**PASTED, "Content-Type": "application/octet-stream"}, data)
    local.endpoint.cuts = [5 << 20]
    reply = ask(local.port, POINT)
    assert reply.body == data and reply.headers["X-Meta"] == PASTED["X-Meta"]
    assert reply.headers["Content-Type"] == "application/octet-stream" and len(script.asked) == 2


def test_an_answer_without_end(local: ProxiedServer, script: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused; what it took is free again."""
    monkeypatch.setattr(official_exchange, "MAX_ANSWER_BYTES", 8 << 20)
    script.answer = lambda asked: (200, PASTED, bytes(9 << 20))
    for _ in range(3):
        reply = ask(local.port, POINT)
        assert reply.status == 502 and "8 MiB" in reply.sentence


def test_answers_share_the_memory_of_bodies(script: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one answer takes is given back when it was delivered, and what is not there is not taken."""
    memory = BodyMemory(2 << 20)
    monkeypatch.setattr("dls.remote.tunnel.proxy.BodyMemory", lambda: memory)
    with proxied(script.port, official_timeout=20) as server:
        for size, status in ((5 << 20, 200), (7 << 20, 502), (5 << 20, 200)):
            script.answer = lambda asked, size=size: (200, PASTED, bytes(size))  # type: ignore[misc]
            assert ask(server.port, POINT).status == status
            until(lambda: memory._left == 2 << 20)


def test_an_image_that_takes_longer_than_a_prompt(script: ScriptedServer) -> None:
    """As long as its bytes move it is not given up."""
    never = threading.Event()

    def send(sock: socket.socket) -> None:
        sock.sendall(b"POST /set_image HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n")
        for _ in range(30):  # 3 s in all, 0.1 s without a byte
            sock.sendall(bytes(100_000))
            never.wait(0.1)

    with proxied(script.port, official_timeout=1.5) as server, server.connect() as sock:
        thread = threading.Thread(target=send, args=(sock,))
        thread.start()
        assert sock.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        thread.join()
    assert len(script.asked) == 1 and len(script.asked[0].body) == 3_000_000


def test_keep_alive(local: ProxiedServer, script: ScriptedServer) -> None:
    """Requests and heartbeats with a body follow each other on one connection, as httpx sends them."""
    script.answer = lambda asked: (
        say(200, {"remaining_seconds": 5.0}) if asked.path == "/heartbeat" else (200, {}, b"x")
    )
    client = http.client.HTTPConnection("127.0.0.1", local.port, timeout=30)
    client.connect()
    own = client.sock
    for path in ("/claim", "/heartbeat", POINT, "/heartbeat", "/heartbeat", UNDO):
        client.request("POST", path, b"{}", {"X-Lease-Token": LEASE})
        assert client.getresponse().read() and client.sock is own
    client.close()


def test_two_kinds_of_clients_at_once(local: ProxiedServer, script: ScriptedServer) -> None:
    """A prompt that is under way holds back neither polls nor the prompts of others."""

    others_are_answered = threading.Event()

    def answer(asked: Asked) -> tuple[int, Mapping[str, str], bytes]:
        if asked.path == POINT:
            others_are_answered.wait(60)
        return say(200, {"remaining_seconds": 1.5, "status": "ok"})

    script.answer = answer
    stuck = threading.Thread(target=ask, args=(local.port, POINT))
    stuck.start()
    until(lambda: script.asked)
    assert json.loads(ask(local.port, "/heartbeat").body)["remaining_seconds"] == 1.5
    assert local.snap.get("/status").json["status"] == "ok"
    assert ask(local.port, UNDO, OTHER).status == 200
    assert stuck.is_alive()
    others_are_answered.set()
    stuck.join()
