"""The phases of a connection in order, and their undoing in reverse."""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import paramiko

from dls.errors import ForwardError, LaunchError, LinkError
from dls.remote import install, launch
from dls.remote.connection import Connection, Prohibited
from dls.remote.forward import DEFAULT_PORT, Forward
from dls.remote.launch import ServerRequest
from dls.remote.packages import Code, requirements
from dls.remote.probe import DEFAULT_REMOTE_DIR, HostReport, ServerState, probe
from dls.remote.progress import Phases, Reporter, Silent
from dls.remote.prompts import NoPrompter, Prompter
from dls.remote.target import Target, load_config, resolve

KEEPALIVE_SECONDS = 5.0
LINK_DEADLINE = 15.0
"""Seconds without an answer after which the link counts as lost. paramiko's own keep-alive took 947 s, or never."""


@dataclass(frozen=True)
class Reach:
    """How a host is reached: the options that every command which logs in takes."""

    target: str
    ssh_config: Path | None = None
    identities: tuple[Path, ...] = ()
    ssh_port: int | None = None
    accept_new_host_key: bool = False
    password: str | None = field(default=None, repr=False)
    remote_dir: str = DEFAULT_REMOTE_DIR

    def command(self, verb: str) -> str:
        """Return the command line that reaches the same host to do something else."""
        words = ["dls", verb]
        words += ["-F", str(self.ssh_config)] if self.ssh_config else []
        words += [word for path in self.identities for word in ("-i", str(path))]
        words += ["--ssh-port", str(self.ssh_port)] if self.ssh_port else []
        words += ["--remote-dir", self.remote_dir] if self.remote_dir != DEFAULT_REMOTE_DIR else []
        return shlex.join([*words, self.target])

    def resolve(self) -> tuple[Target, ...]:
        """Return the jump hosts, nearest first, and the target itself."""
        config = load_config(self.ssh_config)
        target = resolve(self.target, config, identities=self.identities, port=self.ssh_port)
        return (*(resolve(jump, config, identities=self.identities) for jump in target.jumps), target)


def log_in(reach: Reach, prompter: Prompter, phases: Phases) -> Connection:
    """Resolve the target and log in to it, through its jump hosts."""
    with phases("resolve", f"Looking up {reach.target}") as phase:
        *jumps, target = reach.resolve()
        via = f" through {', '.join(jump.label for jump in jumps)}" if jumps else ""
        phase.result = f"Going to {target}{via}"
    with phases("login", f"Logging in to {target}") as phase:
        connection: Connection | None = None
        for hop in (*jumps, target):
            if jumps:
                phase.update(f"connecting to {hop.label}")
            # A password is for the target; a jump host that wants one asks.
            password = reach.password if hop is target else None
            try:
                connection = Connection.open(
                    hop,
                    prompter,
                    accept_new_host_key=reach.accept_new_host_key,
                    password=password,
                    through=connection,
                )
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
        assert connection is not None
        new = ", its host key is now known" if connection.new_host_key else ""
        phase.result = f"Logged in to {target} with {connection.how}{new}"
    return connection


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
            if not self._answered.wait(LINK_DEADLINE - KEEPALIVE_SECONDS) or not self._connection.is_active():
                break
        if not self._stopped.is_set():
            self.lost.set()
            self._connection.close()

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
    request = ServerRequest(engine, device, gpu, stand_in)
    return establish(reach, request, local_port, prompter or NoPrompter(), reporter or Silent())


def establish(
    reach: Reach, request: ServerRequest, local_port: int | None, prompter: Prompter, reporter: Reporter
) -> Session:
    """Run the phases; the engine's name is checked before anybody logs in."""
    requirements(request.engine)
    phases = Phases(reporter)
    connection = log_in(reach, prompter, phases)
    try:
        arrival = _Arrival(reach, request, connection, phases)
        state = arrival.server()
        forward = arrival.forward(state, local_port)
        return Session(reach, connection, forward, state, arrival.report, phases)
    except BaseException:
        connection.close()
        raise


class _Arrival:
    """What happens between the login and the open port."""

    def __init__(self, reach: Reach, request: ServerRequest, connection: Connection, phases: Phases) -> None:
        self._reach = reach
        self._request = request
        self._connection = connection
        self._phases = phases
        self._code = Code.installed()
        self.report = self._probe(full=False)

    def _probe(self, *, full: bool) -> HostReport:
        with self._phases("probe", f"Looking at {self._connection.target.label}") as phase:
            report = probe(self._connection, self._reach.remote_dir, full=full)
            phase.result = _described(report)
        return report

    def server(self) -> ServerState:
        """Find the server, or set it up; with a port and a secret where its socket can't be forwarded."""
        try:
            return self._find() or self._set_up(self._request)
        except ForwardError:
            # OpenSSH says "connect failed" both for a forbidden socket and for one where nobody listens.
            self._phases.reporter.note(
                f"{self._connection.target.label} forwards no Unix sockets: using a loopback port and a secret there."
            )
        try:
            return self._set_up(replace(self._request, tcp=True))
        except Prohibited as error:
            raise ForwardError(
                f"{self._connection.target.label} forbids every kind of forwarding.", error.hint
            ) from error

    def _find(self) -> ServerState | None:
        state = self.report.server
        if state is None:
            return None
        wishes = {replace(self._request, tcp=tcp).key for tcp in (False, True)}
        if state.code != self._code.key or state.request not in wishes:
            return None
        try:
            return state if launch.answers(self._connection, state) else None
        except Prohibited:
            raise
        except ForwardError:  # nobody listens there any more
            return None

    def _set_up(self, request: ServerRequest) -> ServerState:
        if not self.report.full:
            self.report = self._probe(full=True)
        plan = install.plan(self.report, requirements(request.engine), self._code.key)
        if not plan.nothing_to_do:
            with self._phases("install", f"Setting up {self._connection.target.label}") as phase:
                own_caches = self._reach.remote_dir != DEFAULT_REMOTE_DIR
                install.install(self._connection, plan, self._code, phase, own_caches=own_caches)
                phase.result = "Installed the packages and our code" if plan.make_environment else "Sent our code"
        with self._phases("launch", "Starting the server") as phase:
            if self.report.server is not None:
                phase.update("ending the server that runs, which has other code or options")
                launch.stop(self._connection, self.report.server)
            state = launch.launch(self._connection, self.report, plan, request, self._code.key)
            self.report = replace(self.report, server=state, full=True)
            if not launch.answers(self._connection, state):
                raise LaunchError(
                    f"The server on {self._connection.target.label} started but does not answer.",
                    f"Its log: {state.log}",
                )
            phase.result = f"Started the server ({state.engine})"
        return state

    def forward(self, state: ServerState, local_port: int | None) -> Forward:
        """Open the local port."""

        def channel() -> paramiko.Channel:
            if state.port is None:
                return self._connection.open_unix(state.socket)
            return self._connection.open_tcp("127.0.0.1", state.port)

        with self._phases("forward", "Opening the local port") as phase:
            forward = Forward.open(self._connection.transport, channel, local_port)
            phase.result = f"Forwarding localhost:{forward.port}"
        if local_port is None and forward.port != DEFAULT_PORT:
            self._phases.reporter.note(f"Port {DEFAULT_PORT} is taken on this computer: using {forward.port}.")
        return forward


def _described(report: HostReport) -> str:
    parts = [f"{report.hostname}, {report.system} {report.machine}"]
    if report.gpus:
        parts.append("; ".join(str(gpu) for gpu in report.gpus))
    elif report.full:
        parts.append("no NVIDIA GPU")
    if report.server is not None:
        parts.append("a server is running")
    return ", ".join(parts)


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
        path = report.server.log if report.server else f"{report.root}/log/server-{report.hostname}.log"
        done = connection.run(launch.log_script(path, lines, follow), on_line=write)
    if done.status:
        raise LaunchError(f"There is no server log on {connection.target.label}.", "Connect first: dls connect.")
