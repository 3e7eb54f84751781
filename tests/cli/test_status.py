"""`dls status` and `dls check`: what runs on a host, and whether an address answers as a server does."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from dls.demo import sshd
from dls.errors import DlsError, EngineError, LaunchError, LoginError, TargetError
from dls.remote.host.facts import ServerFacts
from dls.remote.user.memory import remember
from dls.segment.http import Address
from dls.segment.player import SIDE, Player, make_ball
from dls.server.http.access import Policy
from tests.support.command_line import run_dls
from tests.support.connecting import click_once, connected
from tests.support.http_server import LiveServer, serving


def test_the_status_of_a_host(host: sshd.Server, clean: str) -> None:
    """A panel of facts, and the same as JSON; a host without a server says so; looking starts nothing."""
    options = ("-F", str(host.config), "--remote-dir", clean)
    none = run_dls("status", *options, "dls-demo")
    assert none.returncode == 0 and "none runs" in none.stdout and none.stderr == ""
    with connected(host, clean)[0] as session:
        click_once(session.port)
        shown = run_dls("status", *options, "dls-demo", env={**os.environ, "COLUMNS": "150"})
        for part in ("region", "1 awake, ", "point", "30 min", str(session.state.pid), "round trip"):
            assert part in shown.stdout, shown.stdout
        [event] = map(json.loads, run_dls("status", *options, "--json", "dls-demo").stdout.splitlines())
        assert event["event"] == "status" and event["servers"][0]["pid"] == session.state.pid
        assert event["servers"][0]["last"]["kind"] == "point" and event["round_trip"] > 0


def test_the_status_of_all_known_hosts(host: sshd.Server, clean: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Those used before are asked at once, and one that does not answer is told and keeps none waiting."""
    monkeypatch.setenv("DLS_USER_DIR", str(tmp_path))
    options = ("-F", str(host.config), "--remote-dir", clean)
    assert run_dls("status", *options).returncode == 10
    remember("no-such-host.invalid")
    failed = run_dls("status", *options)
    assert failed.returncode == 11 and "No host is known" in failed.stderr
    remember("dls-demo")
    shown = run_dls("status", *options)
    assert shown.returncode == 0 and "no server runs" in shown.stdout and "no-such-host" in shown.stdout


def test_known_hosts_are_asked_by_their_profiles(
    host: sshd.Server, clean: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a profile says of the login holds here too, and a wrong one is a failure of its host alone."""
    monkeypatch.setenv("DLS_USER_DIR", str(tmp_path))
    login = f'ssh-config = "{host.config}"\nremote-dir = "{clean}"\n'
    (tmp_path / "hosts.toml").write_text(f'["dls-demo"]\n{login}\n[wrong]\nssh-prt = 22\n')
    shown = run_dls("status", "--json")
    assert shown.returncode == 0, shown.stderr
    first, second = map(json.loads, shown.stdout.splitlines())
    assert first["host"] == "dls-demo" and first["servers"] == []
    assert second["host"] == "wrong" and "line 6" in second["error"] and second["exit_code"] == 10


def test_odd_facts_are_left_out() -> None:
    """What a server says in another form is nothing, and no error."""
    odd = {"engine": 3, "gpu": "x", "sessions": [1], "last": {"kind": "point", "seconds": float("nan")}, "idle": -1}
    facts = ServerFacts.read({**odd, "ends_after": True, "state": "loading", "text": "x" * 500})
    assert facts.engine == "" and facts.gpu is None and facts.awake == 0 and facts.ends_after is None
    assert facts.last is not None and facts.last.whole == 0.0 and len(facts.loading) == 200


def test_a_server_is_checked_as_itk_snap_would(live: LiveServer) -> None:
    """Each kind of request has a line with its time, the masks are looked at, and no session is left."""
    done = run_dls("check", f"http://localhost:{live.port}")
    assert done.returncode == 0, done.stderr
    for name in ("status", "models", "start session", "upload", "point inside", "scribble", "reset", "end session"):
        assert name in done.stdout
    events = [json.loads(line) for line in run_dls("check", f"localhost:{live.port}", "--json").stdout.splitlines()]
    assert [event["event"] for event in events] == ["request"] * 9 and all(event["seconds"] > 0 for event in events)
    with pytest.raises(TargetError, match="no model named 'x'"):
        list(Player(Address(live.port)).play("x"))
    assert make_ball().count(b"\x00\x00\xc8\x42") > 20_000 and len(make_ball()) == 4 * SIDE**3


def test_a_secret_is_needed_and_not_shown() -> None:
    """A server with a secret ends with the exit code of a login; the secret is in no message."""
    with serving(policy=Policy("hidden")) as server:
        assert len(list(Player(Address.parse(f"snap:hidden@localhost:{server.port}")).play())) == 9
        done = run_dls("check", f"http://snap:wrong1@localhost:{server.port}")
    assert done.returncode == 13 and "wrong1" not in done.stderr + done.stdout
    with pytest.raises(TargetError) as caught:
        Address.parse("http://snap:wrong1@localhost:x")
    assert "wrong1" not in caught.value.message


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({}, LaunchError),
        ({"/status": (200, b"<html>")}, LaunchError),
        ({"/status": (401, b"{}")}, LoginError),
        ({"/status": (503, b'{"error": "It loads."}')}, EngineError),
        ({"/status": (200, b"{}"), "/v2/models": (200, b'{"models": []}')}, LaunchError),
    ],
)
def test_what_is_no_server(answers: dict[str, tuple[int, bytes]], error: type[DlsError]) -> None:
    """What something else answers ends in a sentence and an exit code of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, b"nothing"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(error):
            list(Player(Address(server.server_address[1])).play())
        server.shutdown()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert run_dls("check", f"127.0.0.1:{closed.getsockname()[1]}").returncode == 11


def test_an_address_that_speaks_no_http(host: sshd.Server) -> None:
    """That of an SSH server is told as what it is, without its greeting."""
    done = run_dls("check", f"127.0.0.1:{host.port}")
    assert done.returncode == 11 and "speaks no HTTP" in done.stderr and "SSH-2.0" not in done.stderr
