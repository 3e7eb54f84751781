"""Opens a session: logs in, deploys the server and opens the local port, and closes them in reverse order."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from dls.contract import ServerState
from dls.credentials import USER, server_field
from dls.engine_choice import NNINTERACTIVE, REGION, EngineChoice
from dls.errors import DlsError, LinkError
from dls.remote import web_proxy
from dls.remote.cluster.options import ClusterOptions
from dls.remote.cluster.route import Placed, Route
from dls.remote.host import automatic, launch, status
from dls.remote.host.facts import ServerFacts
from dls.remote.host.network import NetworkOptions
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.host.probe import HostReport
from dls.remote.keychain import KeychainPrompter
from dls.remote.licence import Licence
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import Phases, Reporter, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompters import CachingPrompter, ThreadedPrompter
from dls.remote.ssh.prompts import NoPrompter, Prompter
from dls.remote.supplier import SessionSupplier, can_answer
from dls.remote.tunnel.link import CLOSED, Closed, Link, LinkClosed, LinkState
from dls.remote.tunnel.listener import Listener, check_port
from dls.remote.tunnel.local_secret import choose_secret
from dls.remote.tunnel.observation import Observation
from dls.remote.tunnel.opening import open_tunnel
from dls.remote.tunnel.page import Page
from dls.remote.tunnel.supervisor import Supervisor

if TYPE_CHECKING:
    from dls.segment.prompts import Mask, Prompt, Volume
    from dls.segment.segmenter import Segmenter

CLOSE_SECONDS = 2.0
"""Seconds that closing waits for the supervisor; a login under way is left to it, and it closes what it opens."""


class Session:
    """A server on a host and the local port that leads to it; a context manager that closes both."""

    def __init__(
        self,
        target: str,
        login: LoginOptions,
        report: HostReport,
        seconds: dict[str, float],
        *,
        link: Link,
        listener: Listener,
        supervisor: Supervisor,
        prompter: ThreadedPrompter,
        route: Route,
        local_secret: str | None = None,
        serves_viewers: bool = False,
        choice: EngineChoice = EngineChoice(REGION),  # noqa: B008 - frozen
        models: tuple[str, ...] = (REGION,),
        page: Page | None = None,
    ) -> None:
        self.target = target
        """The host as the user named it."""
        self.login = login
        self.report = report
        """What the host has, as it was when the session was opened."""
        self.seconds = seconds
        """Seconds that each phase of the connection took, by the phase's name."""
        self.local_secret = local_secret
        """The secret that the local port asks for; None where every user of this computer can use the port."""
        self.serves_viewers = serves_viewers
        """Whether napari, 3D Slicer and MITK can use the port too: their API key is then the secret."""
        self.choice = choice
        """The engine, and why it is that one."""
        self.models = models
        """Names of the models that ITK-SNAP shows."""
        self._page = page
        self._link = link
        self._listener = listener
        self._supervisor = supervisor
        self._prompter = prompter
        self._route = route
        self._reporter = supervisor.reporter
        self._segmenter: Segmenter | None = None

    def __repr__(self) -> str:
        return f"<dls.Session {self.target} at localhost:{self.port}: {self._link.state.value}>"

    @property
    def connection(self) -> Connection:
        """The current SSH connection; a new one replaces it after a lost link."""
        return self._link.endpoint.connection

    @property
    def state(self) -> ServerState:
        """The current server, as its state file describes it."""
        return self._link.endpoint.state

    @property
    def job(self) -> Placed | None:
        """The job in which the server runs, or ran last; None on a host without a scheduler of jobs."""
        return self._route.placed

    @property
    def is_up(self) -> bool:
        """Whether requests reach the server."""
        return self._link.state is LinkState.OPEN

    @property
    def port(self) -> int:
        """The local port; it stays the same as long as the session is open."""
        return self._listener.port

    @property
    def server_field(self) -> str:
        """What to type into ITK-SNAP's Server field: with the secret of the local port, where it has one."""
        return server_field(self.local_secret)

    @property
    def url(self) -> str:
        """The server's address for programs, with the secret of the local port, where it has one."""
        return f"http://{self.server_field}:{self.port}"

    def observe(self) -> Observation:
        """Return how the link is now; nothing is sent."""
        return Observation.of(self._link)

    def ask_facts(self) -> tuple[float, ServerFacts] | None:
        """Ask the server about itself, and the host how long a round trip takes, in seconds; None in an outage.

        A server of an earlier release says nothing. It is no use of the server, which does not live on for it.
        """
        endpoint = self._link.endpoint
        started = time.monotonic()
        with contextlib.suppress(DlsError):
            if self.is_up and endpoint.connection.answers_keepalive():
                seconds = time.monotonic() - started
                return seconds, ServerFacts.read(status.get_facts(endpoint.connection, endpoint.state))
        return None

    def segment(
        self,
        volume: Volume,
        prompts: Sequence[Prompt],
        *,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Mask:
        """Segment a volume by prompts, applied in their order, and return the mask: uint8 with the values 0 and 1.

        Volume and mask are arrays of the shape (z, y, x), `spacing` is in mm in that order, and prompts are
        `dls.Point`, `dls.Scribble`, `dls.Lasso` and `dls.Box` with voxel indices (z, y, x). Each call begins with an
        empty mask; the volume is sent only when it is another one than in the call before. Needs numpy, a box blosc2
        too. Raises SegmentError for what does not fit or is refused, and LinkError where the server can't be reached.

        >>> mask = session.segment(volume, [dls.Point(20, 64, 80), dls.Point(20, 90, 80, False)])  # doctest: +SKIP
        """
        if self._segmenter is None:
            from dls.segment.http import Address
            from dls.segment.segmenter import Segmenter

            credentials = f"{USER}:{self.local_secret}" if self.local_secret else ""
            self._segmenter = Segmenter(Address(self.port, credentials=credentials))
        return self._segmenter.segment(volume, prompts, spacing)

    @property
    def page_url(self) -> str | None:
        """The address of the page that shows what the server does, for a browser; None where there is no page."""
        return self._page.url(self.port) if self._page is not None else None

    def wait(self) -> None:
        """Wait until the session can't be kept open any longer, and raise the DlsError that says why.

        Questions of the host that come up when the link has to be restored are asked in this thread.
        """
        self._prompter.has_foreground = True
        try:
            while not self._supervisor.ended.wait(0.25):
                self._prompter.answer_pending()
        finally:
            self._prompter.has_foreground = False
        if self._supervisor.error is not None:
            raise self._supervisor.error

    def close(self, *, stop_server: bool = False) -> None:
        """Close the local port and the connection; the server keeps running unless `stop_server` is true.

        A reconnection under way is abandoned: what it still opens, it closes itself.
        """
        if self._segmenter is not None and self.is_up:
            self._segmenter.close()
        self._prompter.close(LinkClosed(CLOSED))
        # In this order: nothing more is submitted, and the login that a job is cancelled through is still there.
        self._supervisor.halt()
        _abandon_job(self._route, self._reporter)
        self._supervisor.stop()
        self._link.handle(Closed())
        self._listener.close()
        try:
            if stop_server and self.connection.is_active():
                # A job ends with its server, and this connection with the job.
                with contextlib.suppress(*([LinkError] if self.job else [])):
                    launch.stop(self.connection, self.state)
        finally:
            self.connection.close()
            if threading.current_thread() is not self._supervisor:  # where a reporter closes the session
                self._supervisor.join(CLOSE_SECONDS)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def connect(
    target: str,
    *,
    server: ServerOptions = ServerOptions(),  # noqa: B008 - frozen, as are the login options
    login: LoginOptions = LoginOptions(),  # noqa: B008
    cluster: ClusterOptions = ClusterOptions(),  # noqa: B008
    network: NetworkOptions = NetworkOptions(),  # noqa: B008
    local_port: int | None = None,
    local_secret: bool | str = False,
    accept_licence: bool = False,
    page: bool = True,
    prompter: Prompter | None = None,
    reporter: Reporter | None = None,
) -> Session:
    """Start a segmentation server on the host, or find the one that runs, and open a local port that leads to it.

    On a login node of a cluster, the server runs in a job, which has what `cluster` asks for. `network` says where a
    host gets the packages that reaches no internet.

    Logs in, installs what is missing, and listens on `local_port`, by default 8911 or the next free port. Every user of
    this computer can use that port; with `local_secret` (True for a new one, or the secret itself) only those who know
    it. With `page` it serves a page for people too. Questions of the host go to `prompter`; without one they fail. So
    does the question whether the user agrees to the licence of nnInteractive's weights, unless they did before;
    `accept_licence` answers it. `reporter` is told what happens. Raises a DlsError that says what failed, a wrong
    engine name or a taken port before the login; nothing is left open then.
    """
    requirements(server.engine)
    secret = choose_secret(local_secret)
    phases = Phases(reporter or Silent())
    cache, questions = _make_prompters(prompter, login)
    supplier = SessionSupplier(target, login, network, questions, may_ask=can_answer(prompter))
    licence = Licence(prompter, phases.reporter.note, server.engine, server.model, accept=accept_licence)
    server, early = automatic.settle_early(server, supplier.packed_engine)
    licence.require(server.engine)
    route = Route(cluster, login, supplier, partial(licence.require, NNINTERACTIVE))
    _look_here(local_port, phases.reporter)
    connection = log_in(target, login, questions, phases)
    cache.login_accepted()
    if connection.kind == "openssh":
        # A login that paramiko can't do is not tried again and again.
        login = route.login = replace(login, carrier="openssh")
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(connection.close)
        cleanup.callback(_abandon_job, route, phases.reporter)
        deployment = route.deploy(server, connection, phases)
        connection = deployment.connection
        cleanup.callback(connection.close)
        server = replace(server, engine=deployment.choice.engine)
        licence.require(server.engine)
        link, listener, shown = open_tunnel(deployment, secret, local_port, server if page else None, phases, cleanup)
        route.settle()
        cleanup.pop_all()
    supervisor = Supervisor(target, login, server, route, link, questions, cache, phases.reporter)
    session = Session(
        target, login, deployment.report, phases.seconds, link=link, listener=listener, supervisor=supervisor,
        prompter=questions, route=route, local_secret=secret, serves_viewers=server.serves_viewers,
        choice=early or deployment.choice, models=server.models, page=shown,
    )  # fmt: skip
    supervisor.start()
    return session


def _make_prompters(prompter: Prompter | None, login: LoginOptions) -> tuple[CachingPrompter, ThreadedPrompter]:
    """Return what remembers the answers of a login, and what asks in the foreground for the thread that reconnects."""
    keychain = KeychainPrompter(prompter or NoPrompter(), saves=login.save_password)
    cache = CachingPrompter(keychain, keychain.login_accepted)
    return cache, ThreadedPrompter(cache)


def _abandon_job(route: Route, reporter: Reporter) -> None:
    """Cancel the job that was submitted for a connection that failed: nobody else would use it."""
    if id := route.abandon():
        reporter.note(f"Cancelled the job {id}.")


def _look_here(local_port: int | None, reporter: Reporter) -> None:
    """Notice what stands in the way on this computer before the login; raises ForwardError for a port that is taken."""
    check_port(local_port)
    if variable := web_proxy.catching_variable(os.environ):
        reporter.note(web_proxy.warning(variable))


__all__ = ["ClusterOptions", "LoginOptions", "NetworkOptions", "ServerOptions", "Session", "connect"]
