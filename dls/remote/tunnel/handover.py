"""The end of a job: the user is told in time, or the link moves to the job's successor."""

from __future__ import annotations

import contextlib
import threading

from dls.errors import DlsError
from dls.remote.cluster.keeper import JobKeeper
from dls.remote.cluster.route import Route, Waiting
from dls.remote.host import launch
from dls.remote.host.options import ServerOptions
from dls.remote.progress import NotesReporter, Phases, Reporter
from dls.remote.tunnel.endpoint import Endpoint
from dls.remote.tunnel.link import CLOSED, Connected, Failed, Link, LinkClosed, ServerLost


class JobWatch:
    """Looks at the end of the server's job whenever the server was found healthy; does nothing outside of jobs."""

    def __init__(self, route: Route, link: Link, server: ServerOptions, reporter: Reporter) -> None:
        self._route = route
        self._link = link
        self._server = server
        self._reporter = reporter
        self._keeper = JobKeeper(route, reporter)
        self._trouble = ""
        self._shown = ""

    def waiting(self, stopped: threading.Event) -> Waiting:
        """Return how a wait in the queue is shown and ended, once the local port is open."""

        def pause(seconds: float) -> None:
            if stopped.wait(seconds):
                raise LinkClosed(CLOSED)

        return Waiting(self._show_queue, pause)

    def _show_queue(self, text: str) -> None:
        """Let requests be refused with the state of the queue, and tell of it when it changes."""
        self._link.handle(Failed(f"{text}. ITK-SNAP can stay as it is."))
        state = text.partition(",")[0]
        if state != self._shown:
            self._reporter.note(f"{text}.")
        self._shown = state

    def tick(self) -> None:
        """Tell of the job's end in time, and move to its successor; where that fails, it is tried again later."""
        try:
            if self._keeper.tick():
                phases = Phases(NotesReporter(self._reporter))
                where = move_to_successor(self._route, self._link, self._server, phases)
                self._reporter.link(True, f"The server moved to {where}; ITK-SNAP can stay as it is.")
        except LinkClosed:
            raise
        except DlsError as error:
            if error.message != self._trouble:
                what = "The job's successor is not ready" if self._route.options.renew else "The job's end is not known"
                self._reporter.note(f"{what}. {error.message}")
            self._trouble = error.message


def move_to_successor(route: Route, link: Link, server: ServerOptions, phases: Phases) -> str:
    """Start the server in the job that follows, wait for its engine, and let the link lead there.

    Returns where it runs now, in words. The old server, and its job, end when the new one is ready: until then clicks
    go to the old one, which finishes its requests. In an error the link stays as it is.
    """
    old, placed = link.endpoint, route.placed
    assert placed is not None
    try:
        deployment = route.deploy(server, placed.login, phases, reconnecting=True, besides=placed.job.id)
        state = deployment.wait_for_engine(deployment.find_or_start())
    except BaseException:
        if route.placed is not None and route.placed is not placed:
            route.placed.inner.transport.close()
        route.placed = placed
        raise
    route.settle()
    link.handle(ServerLost("The server moves to another job."))
    with contextlib.suppress(DlsError):  # its job ends with it, and so does the connection
        launch.stop(old.connection, old.state)
    link.handle(Connected(Endpoint(deployment.connection, state, deployment.protocol)))
    old.connection.transport.close()
    assert route.placed is not None
    return f"the job {route.placed.job.id} on {route.placed.job.node}"
