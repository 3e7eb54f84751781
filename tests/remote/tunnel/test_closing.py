"""What closing a session leaves behind: no port, no thread and no connection, whatever the supervisor is doing."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pycurl
import pytest

import dls
from dls.demo import sshd
from dls.remote import session as sessions
from dls.remote.tunnel.link import ConnectionLost, LinkState
from tests.support.connect_proxy import copy
from tests.support.connecting import RecordingReporter, connected, cut
from tests.support.itksnap import Answer, ItkSnap
from tests.support.one_time_codes import CUT_SHORT, CodePrompter, WithCode
from tests.support.processes import free_port, until


class Gate:
    """A TCP forwarder that lets new connections wait while it is shut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.is_open = threading.Event()
        self.is_open.set()
        self.waiting = 0
        """Number of connections that have waited at the gate so far."""
        self.connections: set[socket.socket] = set()
        """Connections that the client has not closed yet."""

    def accept(self) -> None:
        """Take connections until the listener is shut down."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if not self.is_open.is_set():
            self.waiting += 1
            self.is_open.wait()
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=copy, args=(server, client), daemon=True)
            back.start()
            copy(client, server)
            self.connections.discard(client)
            back.join()

    def close(self) -> None:
        """Stop listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def gated(server: sshd.Server) -> Iterator[tuple[Gate, sshd.Server]]:
    """Put a gate in front of an SSH server; yields it, and the server as it is reached through the gate."""
    gate = Gate(server.port)
    threading.Thread(target=gate.accept, daemon=True).start()
    config = server.config.with_name("gate_config")
    text = server.config.read_text()
    config.write_text(
        text.replace(f"Port {server.port}", f"Port {gate.port}\n  HostKeyAlias [127.0.0.1]:{server.port}")
    )
    with contextlib.closing(gate):
        yield gate, sshd.Server(server.program, gate.port, config)


def test_a_login_that_ends_after_the_session_leaves_no_connection(
    remote_dir: str, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing does not wait for the login; the supervisor closes the connection that it opens later, and ends."""
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 0.2)
    log = short_folder / "sshd.log"
    with sshd.running(short_folder) as server, gated(server) as (gate, gated_server):
        session, _ = connected(gated_server, remote_dir)
        gate.is_open.clear()
        cut(session)
        until(lambda: gate.waiting)
        session.close()
        assert session._supervisor.is_alive()  # the login is still under way
        gate.is_open.set()
        until(lambda: not session._supervisor.is_alive())
        until(lambda: log.read_text().count("Accepted publickey") == 2)  # sshd writes it after its answer
        until(lambda: not gate.connections)
        assert session._link.state is LinkState.CLOSED and session._supervisor.error is None
        assert len(session._link.pool) == 0


@CUT_SHORT
def test_closing_ends_a_login_that_waits_for_an_answer(
    remote_dir: str, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question is not asked any more, and the thread that waits for the answer ends."""
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 60.0)
    prompter, challenges = CodePrompter(), []

    class Counted(WithCode):
        def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> object:
            challenges.append(username)
            return super().get_kbdint_challenge(username, lang, submethods)

    with sshd.running(short_folder, library=True, login=Counted) as server:
        login = dls.LoginOptions(ssh_config=server.config, remote_dir=remote_dir)
        session = dls.connect("dls-demo", login=login, local_port=free_port(), prompter=prompter)
        session._prompter.has_foreground = True  # as if `wait` were running, and the user busy
        asked = list(prompter.prompts)
        cut(session)
        until(lambda: len(challenges) == 2)
        session.close()
        assert not session._supervisor.is_alive() and session._supervisor.error is None
        assert prompter.prompts == asked
    gc.collect()


@CUT_SHORT
def test_ctrl_c_at_a_question_ends_the_supervisor(remote_dir: str, short_folder: Path) -> None:
    """It is raised in the thread that asks, and the login that needed the answer ends without an error."""
    with sshd.running(short_folder, library=True, login=WithCode) as server:
        login = dls.LoginOptions(ssh_config=server.config, remote_dir=remote_dir)
        session = dls.connect(
            "dls-demo", login=login, local_port=free_port(), prompter=CodePrompter(KeyboardInterrupt())
        )
        cut(session)
        with pytest.raises(KeyboardInterrupt):
            session.wait()
        until(lambda: not session._supervisor.is_alive())
        session.close()
        assert session._supervisor.error is None
    gc.collect()


def test_the_local_port_closes_with_the_session(host: sshd.Server, remote_dir: str) -> None:
    """A request that waits for the link is answered, later ones find no port, and the supervisor has ended."""
    session, _ = connected(host, remote_dir)
    snap, answers = ItkSnap(session.port), list[Answer]()
    session._link.handle(ConnectionLost("The connection was lost."))
    waiting = threading.Thread(target=lambda: answers.append(snap.get("/v2/models")))
    waiting.start()
    until(lambda: session._link.demand)
    session.close()
    waiting.join()
    assert answers[0].status == 503 and "connection is closed" in answers[0].error
    with pytest.raises(pycurl.error) as caught:
        snap.get("/status")
    assert caught.value.args[0] == pycurl.E_COULDNT_CONNECT
    assert not session._supervisor.is_alive() and session._supervisor.error is None
    session.close()  # closing twice does nothing


class SlowReporter(RecordingReporter):
    """Keeps the supervisor busy when the link is lost, for a moment longer than the session is open."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closing = threading.Event()

    def link(self, is_open: bool, text: str) -> None:
        super().link(is_open, text)
        self.is_closing.wait()
        time.sleep(0.3)


def test_closing_waits_for_the_supervisor(host: sshd.Server, remote_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When `close` returns, the supervisor calls the reporter no more."""
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 60.0)
    reporter = SlowReporter()
    login = dls.LoginOptions(ssh_config=host.config, remote_dir=remote_dir)
    session = dls.connect("dls-demo", login=login, local_port=free_port(), reporter=reporter)
    cut(session)
    until(lambda: reporter.links)
    reporter.is_closing.set()
    session.close()
    assert not session._supervisor.is_alive() and reporter.links[0] is False
