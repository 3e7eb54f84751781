"""The phases of a connection in order, and their undoing in reverse."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import paramiko

from dls.errors import LaunchError, LinkError
from dls.remote import launch
from dls.remote.arrival import Arrival
from dls.remote.connection import Connection
from dls.remote.forward import Forward
from dls.remote.launch import ServerRequest
from dls.remote.packages import requirements
from dls.remote.probe import DEFAULT_REMOTE_DIR, HostReport, ServerState, probe
from dls.remote.progress import Phases, Reporter, Silent
from dls.remote.prompts import NoPrompter, Prompter
from dls.remote.reach import Reach, log_in

KEEPALIVE_SECONDS = 5.0
LINK_DEADLINE = 15.0
"""Seconds without an answer after which the link counts as lost. paramiko's own keep-alive took 947 s, or never."""


class Session:
    """A server on a host and the local port that leads to it; a context manager that closes both ends."""

    def __init__(
        self,
        reach: Reach,
        connection: Connection,
        forward: Forward,
        state: ServerState,
        report: HostReport,
        phases: Phases,
    ) -> None:
        self.reach = reach
        self.connection = connection
        self.state = state
        self.report = report
        self.seconds = phases.seconds
        self._forward = forward
        self._watch = _Watch(connection)
        self._watch.start()

    @property
    def port(self) -> int:
        """The local port."""
        return self._forward.port

    @property
    def server_field(self) -> str:
        """What to type into ITK-SNAP's Server field."""
        # A Unix socket has the host's file permissions to guard it; a port there needs the secret.
        return "localhost" if self.state.port is None else f"snap:{self.state.secret}@localhost"

    @property
    def url(self) -> str:
        """The server's address for programs, secret included where it needs one."""
        return f"http://{self.server_field}:{self.port}"

    def wait(self) -> None:
        """Stay until the link is lost, and raise LinkError then."""
        while not self._watch.lost.wait(0.5):
            pass
        raise LinkError(
            f"The connection to {self.connection.target.label} was lost.",
            "The server there goes on running: connect again, and it is found.",
        )

    def close(self, *, stop_server: bool = False) -> None:
        """Close the forward and the connection; the server stays for the next time unless it is to be stopped."""
        self._watch.stop()
        self._forward.close()
        try:
            if stop_server and self.connection.is_active():
                launch.stop(self.connection, self.state)
        finally:
            self.connection.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Watch(threading.Thread):
    """Judges the link by answers awaited, not by bytes that could be sent."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(name="dls-watch", daemon=True)
        self.lost = threading.Event()
        self._connection = connection
        self._answered = threading.Event()
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(KEEPALIVE_SECONDS):
            self._answered.clear()
            threading.Thread(target=self._ask, name="dls-keepalive", daemon=True).start()
            if not self._heard_from() or not self._connection.is_active():
                break
        if not self._stopped.is_set():
            self.lost.set()
            self._connection.close()

    def _heard_from(self) -> bool:
        """Whether the host answers, or anything else comes from it, within the deadline."""
        asked = time.monotonic()
        while not self._answered.wait(0.5):
            if self._connection.transport.heard > asked:
                return True
            if time.monotonic() - asked > LINK_DEADLINE - KEEPALIVE_SECONDS or self._stopped.is_set():
                return False
        return True

    def _ask(self) -> None:
        with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
            self._connection.transport.global_request("keepalive@openssh.com", wait=True)
            self._answered.set()

    def stop(self) -> None:
        self._stopped.set()


def connect(
    target: str,
    *,
    engine: str = "region",
    device: str = "auto",
    gpu: int | None = None,
    stand_in: bool = False,
    model: str | None = None,
    network: bool = True,
    local_port: int | None = None,
    ssh_config: Path | None = None,
    identities: tuple[Path, ...] = (),
    ssh_port: int | None = None,
    accept_new_host_key: bool = False,
    password: str | None = None,
    remote_dir: str = DEFAULT_REMOTE_DIR,
    prompter: Prompter | None = None,
    reporter: Reporter | None = None,
) -> Session:
    """Put a segmentation server on the host and its address on localhost.

    Logs in, sets up what is missing, starts the server or finds the one that runs, and opens the local port (8911, or
    the next free one). Raises a DlsError that says what failed; nothing is left open then.
    """
    reach = Reach(target, ssh_config, identities, ssh_port, accept_new_host_key, password, remote_dir)
    request = ServerRequest(engine, device, gpu, stand_in, model=model, network=network)
    return establish(reach, request, local_port, prompter or NoPrompter(), reporter or Silent())


def establish(
    reach: Reach, request: ServerRequest, local_port: int | None, prompter: Prompter, reporter: Reporter
) -> Session:
    """Run the phases; the engine's name is checked before anybody logs in."""
    requirements(request.engine)
    phases = Phases(reporter)
    connection = log_in(reach, prompter, phases)
    try:
        arrival = Arrival(reach, request, connection, phases)
        state = arrival.server()
        forward = arrival.forward(state, local_port)
        try:
            state = arrival.wait_for_engine(state)
        except BaseException:
            forward.close()
            raise
        return Session(reach, connection, forward, state, arrival.report, phases)
    except BaseException:
        connection.close()
        raise


def stop_server(reach: Reach, prompter: Prompter, reporter: Reporter) -> bool:
    """End the server on the host; False when none was running."""
    phases = Phases(reporter)
    connection = log_in(reach, prompter, phases)
    with contextlib.closing(connection):
        state = probe(connection, reach.remote_dir).server
        if state is None:
            return False
        with phases("stop", "Ending the server") as phase:
            launch.stop(connection, state)
            phase.result = "Ended the server"
    return True


def read_log(
    reach: Reach,
    prompter: Prompter,
    reporter: Reporter,
    *,
    lines: int,
    follow: bool,
    write: Callable[[str], None],
) -> None:
    """Print the server's log, line by line, through `write`."""
    connection = log_in(reach, prompter, Phases(reporter))
    with contextlib.closing(connection):
        report = probe(connection, reach.remote_dir)
        path = report.server.log if report.server else launch.log_path(report)
        done = connection.run(launch.log_script(path, lines, follow), on_line=write)
    if done.status:
        raise LaunchError(f"There is no server log on {connection.target.label}.", "Connect first: dls connect.")


__all__ = ["Reach", "Session", "connect", "establish", "log_in", "read_log", "stop_server"]
