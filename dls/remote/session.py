"""The phases of a connection in order, and their undoing in reverse."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from dls.contract import DEFAULT_IDLE, DEFAULT_PORT, DEFAULT_REMOTE_DIR, DEFAULT_TTL, ServerState
from dls.errors import LaunchError
from dls.remote.host import launch, stored_sessions
from dls.remote.host.deploy import Deployment
from dls.remote.host.launch import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.host.probe import HostReport, probe
from dls.remote.host.stored_sessions import StoredSession
from dls.remote.progress import Phases, Reporter, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.login import LoginOptions, log_in
from dls.remote.ssh.prompters import CachingPrompter, ThreadedPrompter
from dls.remote.ssh.prompts import NoPrompter, Prompter
from dls.remote.tunnel.link import Endpoint, Link, LinkState
from dls.remote.tunnel.listener import Listener
from dls.remote.tunnel.proxy import Proxy
from dls.remote.tunnel.supervisor import Supervisor


class Session:
    """A server on a host and the local port that leads to it; a context manager that closes both ends."""

    def __init__(
        self,
        target: str,
        login: LoginOptions,
        link: Link,
        forward: Listener,
        keeper: Supervisor,
        asking: ThreadedPrompter,
    ) -> None:
        self.target = target
        """The host as it was named."""
        self.login = login
        self.report: HostReport
        self.seconds: dict[str, float]
        """Of each phase."""
        self._link = link
        self._forward = forward
        self._keeper = keeper
        self._asking = asking

    @property
    def connection(self) -> Connection:
        """The connection as it is now; another one after a lost link."""
        return self._link.end.connection

    @property
    def state(self) -> ServerState:
        """The server as it is now."""
        return self._link.end.state

    @property
    def is_up(self) -> bool:
        """Whether the way to the server is open."""
        return self._link.way is LinkState.OPEN

    @property
    def port(self) -> int:
        """The local port; it stays."""
        return self._forward.port

    @property
    def server_field(self) -> str:
        """What to type into ITK-SNAP's Server field."""
        return "localhost"

    @property
    def url(self) -> str:
        """The server's address for programs."""
        return f"http://{self.server_field}:{self.port}"

    def wait(self) -> None:
        """Stay for as long as the link can be kept, and raise why it can't be any more.

        What the host asks when the link has to be mended is asked in this thread.
        """
        self._asking.has_foreground = True
        try:
            while not self._keeper.failed.wait(0.25):
                self._asking.answer_pending()
        finally:
            self._asking.has_foreground = False
        if self._keeper.error is not None:
            raise self._keeper.error

    def close(self, *, stop_server: bool = False) -> None:
        """Close the forward and the connection; the server stays for the next time unless it is to be stopped."""
        self._keeper.stop()
        self._link.close()
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


def connect(
    target: str,
    *,
    engine: str = "region",
    device: str = "auto",
    gpu: int | None = None,
    stand_in: bool = False,
    model: str | None = None,
    network: bool = True,
    session_dir: str | None = None,
    session_ttl: float = DEFAULT_TTL,
    idle: float = DEFAULT_IDLE,
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
    the next free one). The server ends `idle` seconds after the last request and the last client (0 for never), and
    forgets a session `session_ttl` seconds after its last use. Raises a DlsError that says what failed; nothing is left
    open then.
    """
    login = LoginOptions(ssh_config, identities, ssh_port, accept_new_host_key, password, remote_dir)
    request = ServerOptions(
        engine, device, gpu, stand_in, model=model, network=network,
        session_dir=session_dir, session_ttl=session_ttl, idle=idle,
    )  # fmt: skip
    return establish(target, login, request, local_port, prompter or NoPrompter(), reporter or Silent())


def establish(
    target: str,
    login: LoginOptions,
    request: ServerOptions,
    local_port: int | None,
    prompter: Prompter,
    reporter: Reporter,
) -> Session:
    """Run the phases; the engine's name is checked before anybody logs in."""
    requirements(request.engine)
    phases = Phases(reporter)
    memory = CachingPrompter(prompter)
    asking = ThreadedPrompter(memory)
    connection = log_in(target, login, asking, phases)
    memory.login_accepted()
    try:
        arrival = Deployment(login, request, connection, phases)
        state = arrival.server()
        link = Link(Endpoint(connection, state, arrival.protocol))
        forward = _open_port(connection, Proxy(link), local_port, phases)
        try:
            link.opened(replace(link.end, state=arrival.wait_for_engine(state)))
        except BaseException:
            forward.close()
            raise
    except BaseException:
        connection.close()
        raise
    keeper = Supervisor(target, login, request, link, asking, memory, reporter)
    session = Session(target, login, link, forward, keeper, asking)
    session.report, session.seconds = arrival.report, phases.seconds
    keeper.start()
    return session


def _open_port(connection: Connection, relay: Proxy, local_port: int | None, phases: Phases) -> Listener:
    with phases("forward", "Opening the local port") as phase:
        forward = Listener.open(connection.transport, relay.serve, local_port)
        phase.result = f"Forwarding localhost:{forward.port}"
    if local_port is None and forward.port != DEFAULT_PORT:
        phases.reporter.note(f"Port {DEFAULT_PORT} is taken on this computer: using {forward.port}.")
    return forward


def stop_server(target: str, login: LoginOptions, prompter: Prompter, reporter: Reporter) -> bool:
    """End the server on the host; False when none was running."""
    phases = Phases(reporter)
    connection = log_in(target, login, prompter, phases)
    with contextlib.closing(connection):
        found = probe(connection, login.remote_dir).servers
        for state in found:
            with phases("stop", "Ending the server") as phase:
                launch.stop(connection, state)
                phase.result = f"Ended the server ({state.engine}); its sessions stay"
    return bool(found)


def kept_sessions(
    target: str,
    login: LoginOptions,
    prompter: Prompter,
    reporter: Reporter,
    *,
    session_dir: str | None = None,
    choose: Callable[[list[StoredSession]], list[StoredSession]] = lambda found: [],
) -> tuple[list[StoredSession], list[StoredSession]]:
    """Return the sessions that are kept on the host, and of them those that `choose` chose, which are removed."""
    phases = Phases(reporter)
    connection = log_in(target, login, prompter, phases)
    with contextlib.closing(connection):
        report = probe(connection, login.remote_dir)
        found = stored_sessions.look(connection, report, session_dir)
        chosen = choose(found)
        if chosen:
            with phases("purge", "Removing sessions") as phase:
                stored_sessions.remove(connection, report, session_dir, [session.id for session in chosen])
                phase.result = f"Removed {len(chosen)} of {len(found)} sessions"
    return found, chosen


def read_log(
    target: str,
    login: LoginOptions,
    prompter: Prompter,
    reporter: Reporter,
    *,
    lines: int,
    follow: bool,
    write: Callable[[str], None],
) -> None:
    """Print the server's log, line by line, through `write`."""
    connection = log_in(target, login, prompter, Phases(reporter))
    with contextlib.closing(connection):
        report = probe(connection, login.remote_dir)
        path = report.servers[0].log if report.servers else launch.log_path(report)
        done = connection.run(launch.log_script(path, lines, follow), on_line=write)
    if done.status:
        raise LaunchError(f"There is no server log on {connection.target.label}.", "Connect first: dls connect.")


__all__ = ["Session", "connect", "establish", "read_log", "stop_server"]
