"""The phases of a connection in order, and their undoing in reverse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType

from dls.contract import DEFAULT_IDLE, DEFAULT_PORT, DEFAULT_REMOTE_DIR, DEFAULT_TTL, ServerState
from dls.remote.host import launch
from dls.remote.host.deploy import Deployment
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.host.probe import HostReport
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
    session_ttl_days: float = DEFAULT_TTL / 86400,
    idle_minutes: float = DEFAULT_IDLE / 60,
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
    the next free one). The server ends `idle_minutes` minutes after the last request and the last client (0 for never), and
    forgets a session `session_ttl_days` days after its last use. Raises a DlsError that says what failed; nothing is left
    open then.
    """
    login = LoginOptions(ssh_config, identities, ssh_port, accept_new_host_key, password, remote_dir)
    request = ServerOptions(
        engine, device, gpu, stand_in, model=model, network=network,
        session_dir=session_dir, session_ttl_days=session_ttl_days, idle_minutes=idle_minutes,
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
        deployment = Deployment.start(login, request, connection, phases)
        state = deployment.find_or_start()
        link = Link(Endpoint(connection, state, deployment.protocol))
        forward = _open_port(connection, Proxy(link), local_port, phases)
        try:
            link.opened(replace(link.end, state=deployment.wait_for_engine(state)))
        except BaseException:
            forward.close()
            raise
    except BaseException:
        connection.close()
        raise
    keeper = Supervisor(target, login, request, link, asking, memory, reporter)
    session = Session(target, login, link, forward, keeper, asking)
    session.report, session.seconds = deployment.report, phases.seconds
    keeper.start()
    return session


def _open_port(connection: Connection, relay: Proxy, local_port: int | None, phases: Phases) -> Listener:
    with phases("forward", "Opening the local port") as phase:
        forward = Listener.open(connection.transport, relay.serve, local_port)
        phase.result = f"Forwarding localhost:{forward.port}"
    if local_port is None and forward.port != DEFAULT_PORT:
        phases.reporter.note(f"Port {DEFAULT_PORT} is taken on this computer: using {forward.port}.")
    return forward


__all__ = ["Session", "connect", "establish"]
