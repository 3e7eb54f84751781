"""Monitors the tunnel and the server, and reconnects or restarts them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from dls.errors import DlsError, ForwardError, HostKeyError, LinkError, LoginError
from dls.remote.cluster.route import Route
from dls.remote.cluster.scheduler import JobEnded
from dls.remote.host import launch
from dls.remote.host.options import ServerOptions
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import NotesReporter, Phases, Reporter, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompters import CachingPrompter, ThreadedPrompter
from dls.remote.tunnel.endpoint import Endpoint
from dls.remote.tunnel.handover import JobWatch
from dls.remote.tunnel.health import AWAKE_DEADLINE, CHECK_SECONDS, LINK_DEADLINE, Health, HealthCheck, is_host_alive
from dls.remote.tunnel.link import (
    CLOSED,
    Connected,
    ConnectionLost,
    Failed,
    GaveUp,
    Link,
    LinkClosed,
    LinkState,
    ServerLost,
    ServerStopped,
)
from dls.remote.tunnel.reconnect_policy import REFUSED_DELAY, ReconnectPolicy

SLEPT_SECONDS = 15.0
"""Seconds by which the wall clock must run ahead of the steady one, or a wait of a second last, after a sleep."""
ASLEEP_CHECK_SECONDS = 15.0
"""Seconds between two checks while the server is asleep."""
WAKE_SECONDS = 10.0
"""Seconds that a hung server may take to answer after it was sent a signal to continue."""
SCRIPT_TIMEOUT = 30.0
"""Maximum silence in seconds of a script that wakes or kills the server."""


@dataclass(frozen=True)
class Clock:
    """The clocks, so that a test can replace them: `wall` goes on while a computer sleeps, `steady` only on Windows."""

    steady: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Supervisor(threading.Thread):
    """The thread that checks the link and the server, and restores what was lost.

    `ended` is set when the thread ends, and `error` says why if it gave up.
    """

    def __init__(
        self,
        target: str,
        login: LoginOptions,
        server: ServerOptions,
        route: Route,
        link: Link,
        prompter: ThreadedPrompter,
        prompt_cache: CachingPrompter,
        reporter: Reporter,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name="dls-supervisor", daemon=True)
        self.ended = threading.Event()
        self.error: DlsError | None = None
        self._target = target
        self._login = login
        self._server = server
        self._route = route
        self._link = link
        self._prompter = prompter
        self._prompt_cache = prompt_cache
        self.reporter = reporter
        self._clock = clock or Clock()
        self._stopped = threading.Event()
        self._may_close = threading.Event()
        """Set with `_stopped` or after it: until then a connection of a stopped thread is left to `stop`."""
        self._last_check: HealthCheck | None = None
        self._connection: Connection | None = None
        """The connection that `reconnect` works with; the link may not know it yet."""
        self._is_loss_reported = False
        self._job_watch = JobWatch(route, link, server, reporter)

    def run(self) -> None:
        """Check and restore until `stop` is called, or until there is no point in another attempt."""
        try:
            self._supervise()
        except LinkClosed:
            pass  # the session was closed meanwhile
        except KeyboardInterrupt:
            pass  # pressed at a question that the main thread asks for this one; it is raised there too
        except DlsError as error:
            self._give_up(error)
        except Exception as error:  # a bug must not look like a link that is fine
            self._give_up(
                LinkError(
                    f"dls failed with an internal error while it monitored the link: {type(error).__name__}: {error}."
                )
            )
        self.ended.set()

    def _give_up(self, error: DlsError) -> None:
        self.error = error
        with contextlib.suppress(LinkClosed):
            self._link.handle(GaveUp(error.message))

    def _supervise(self) -> None:
        deadline = LINK_DEADLINE
        while not self._stopped.is_set():
            if self._link.state is LinkState.ASLEEP:
                self.wait_asleep()
            elif (health := self.check(deadline)) is Health.HEALTHY:
                self._job_watch.tick()
                deadline = AWAKE_DEADLINE if self._wait(CHECK_SECONDS) else LINK_DEADLINE
            elif not self._stopped.is_set():
                self.reconnect(health)

    def halt(self) -> None:
        """Let the thread begin nothing more; its connection stays open until `stop`."""
        self._stopped.set()
        self._link.wake.set()

    def stop(self) -> None:
        """Make the thread end soon; it closes the connection that a login under way still opens."""
        self.halt()
        self._may_close.set()
        # `_log_in` sets the connection first and tests `_stopped` then, so that one of the two closes it.
        connection = self._connection
        if connection is not None and connection is not self._link.endpoint.connection:
            connection.close()

    def _wait(self, seconds: float) -> bool:
        """Wait, less long if `link.wake` is set; return whether the computer was suspended meanwhile."""
        steady, wall = self._clock.steady(), self._clock.wall()
        deadline, before = steady + seconds, steady
        while before < deadline and not self._stopped.is_set():
            # In short steps: after a sleep of the computer, one long wait would go on as if nothing had happened.
            if self._link.wake.wait(min(1.0, seconds)):
                self._link.wake.clear()
                break
            now = self._clock.steady()
            if now - before > SLEPT_SECONDS or self._has_slept(steady, wall):
                return True
            before = now
        return self._has_slept(steady, wall)

    def _has_slept(self, steady: float, wall: float) -> bool:
        return (self._clock.wall() - wall) - (self._clock.steady() - steady) > SLEPT_SECONDS

    def check(self, deadline: float = LINK_DEADLINE) -> Health:
        """Check the server and, when it does not answer, its host, which has `deadline` seconds to answer."""
        self._last_check = HealthCheck(self._link.endpoint, self._stopped)
        return self._last_check.run(deadline)

    def reconnect(self, health: Health) -> None:
        """Restore what the check found broken; returns when the link is open or asleep, or when it is to stop.

        Raises a DlsError when there is no point in another attempt, and LinkClosed.
        """
        started = self._clock.steady()
        self._connection = self._link.endpoint.connection
        self._is_loss_reported = False
        try:
            if health is Health.LINK_LOST:
                why = f"The connection to {self._target} was lost. Connecting again; ITK-SNAP can stay as it is."
                if self._back_out_of_job():
                    why = f"The job on {self._target} is out of reach or has ended; ITK-SNAP can stay as it is."
                self._link.handle(ConnectionLost(why))
                self._report_loss(why)
            elif health is Health.SERVER_HUNG and self._resume_or_kill_server():
                return
            if self._retry_until_restored():
                seconds, job = self._clock.steady() - started, self._route.describe()
                self.reporter.link(True, f"Connected to {self._target} again{job}, after {seconds:.0f} s.")
        finally:
            if not self._stopped.is_set() or self._may_close.is_set():
                if self._connection is not self._link.endpoint.connection:
                    self._discard_connection()
                self._connection = None

    def _report_loss(self, why: str) -> None:
        self._is_loss_reported = True
        self.reporter.link(False, why)

    def _back_out_of_job(self) -> bool:
        """Close the connection, but for that to the login node where it still works: then nobody logs in again."""
        assert self._connection is not None
        login = self._route.back_out(self._connection)
        if login is not None and login.is_active() and is_host_alive(login, LINK_DEADLINE, self._stopped):
            self._connection = login
            return True
        self._discard_connection()
        return False

    def _discard_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _retry_until_restored(self) -> bool:
        """Try until the link is open; False when it is asleep or when the supervisor is to stop."""
        policy = ReconnectPolicy()
        last_message = ""
        while not self._stopped.is_set():
            try:
                return self._restore(self._connection or self._log_in(policy))
            except LinkClosed:
                raise
            except DlsError as error:
                if self._stopped.is_set():
                    return False
                if self._connection is not None and not self._connection.is_active() and self._back_out_of_job():
                    continue
                policy.record_failure(error)
                self._link.handle(Failed(error.message, policy.pause))
                if not self._is_loss_reported:  # the connection ended while the server was looked for
                    self._report_loss(error.message)
                elif error.message != last_message:
                    self.reporter.note(error.message)
                last_message = error.message
            self._wait_after_failure(policy)
        return False

    def _wait_after_failure(self, policy: ReconnectPolicy) -> None:
        if policy.is_refused:
            self._stopped.wait(REFUSED_DELAY)
        elif self._wait(policy.delay):
            policy.reset_delay()
        if self._connection is not None and not self._connection.is_active():
            self._discard_connection()

    def _log_in(self, policy: ReconnectPolicy) -> Connection:
        try:
            connection = log_in(self._target, self._login, self._prompter, Phases(Silent()))
        except (LoginError, HostKeyError):
            self._prompt_cache.login_refused()
            raise
        except DlsError:
            self._prompt_cache.login_interrupted()
            raise
        self._connection = connection
        if self._stopped.is_set():
            raise LinkClosed(CLOSED)
        self._prompt_cache.login_accepted()
        policy.record_login()
        return connection

    def _restore(self, connection: Connection) -> bool:
        """Find the server, or start it again unless it ended on purpose; False when it is left asleep."""
        why = f"The server on {self._target} has ended. Bringing it back, with its sessions."
        was_open = self._link.state is LinkState.OPEN
        if was_open:
            self._link.handle(ServerLost(why))
        # The first connect found out whether the host forwards Unix sockets.
        server = replace(self._server, tcp=self._link.endpoint.state.port is not None)
        phases = Phases(NotesReporter(self.reporter))
        node = self._link.endpoint.state.host
        try:
            deployment = self._route.deploy(
                server,
                connection,
                phases,
                reconnecting=True,
                node=node,
                may_submit=self._link.demand,
                waiting=self._job_watch.waiting(self._stopped),
            )
        except JobEnded as ended:
            why = f"{ended.message} The next click submits another one."
            self._fall_asleep(connection, why, why)
            return False
        self._connection = connection = deployment.connection
        if deployment.ended_on_purpose and not self._link.demand:
            note = f"The server on {self._target} was ended. The next click starts it again."
            self._fall_asleep(connection, note, "The server was ended; the next request starts it again.")
            return False
        if was_open:
            self._report_loss(why)
        try:
            state = deployment.find_or_start()
        except ForwardError as error:
            if not connection.is_active():
                raise LinkError(error.message, error.hint) from error
            raise
        self._route.settle()
        self._link.handle(Connected(Endpoint(connection, state, deployment.protocol)))
        return True

    def _fall_asleep(self, connection: Connection, note: str, reason: str) -> None:
        """Keep the connection, and start nothing before the next request."""
        self._link.handle(ServerStopped(replace(self._link.endpoint, connection=connection), reason))
        self.reporter.note(note)

    def wait_asleep(self) -> None:
        """Keep the connection to a host whose server is asleep, and reconnect when the server is needed or is back."""
        connection = self._link.endpoint.connection
        if self._wait_for_reason_to_reconnect():
            self.reconnect(Health.SERVER_GONE if connection.is_active() else Health.LINK_LOST)

    def _wait_for_reason_to_reconnect(self) -> bool:
        """Wait up to ASLEEP_CHECK_SECONDS for a reason to reconnect; another client may have started the server."""
        endpoint = self._link.endpoint
        deadline = time.monotonic() + ASLEEP_CHECK_SECONDS
        while time.monotonic() < deadline and not self._stopped.is_set():
            self._link.wake.wait(1.0)
            self._link.wake.clear()
            if self._link.demand or not endpoint.connection.is_active():
                return not self._stopped.is_set()
        if self._stopped.is_set():
            return False
        if not is_host_alive(endpoint.connection, LINK_DEADLINE, self._stopped):
            endpoint.connection.close()
            return not self._stopped.is_set()
        with contextlib.suppress(DlsError):
            endpoint.open().close()
            return True
        return False

    def _resume_or_kill_server(self) -> bool:
        """Let a hung server continue, in case it was stopped by a signal, and kill it when that does not help.

        Returns True when it answers after all, or when the supervisor is to stop. The script returns only over a link
        that carries data, so that a server whose answers wait behind an upload on a slow link is not killed.
        """
        check, endpoint = self._last_check, self._link.endpoint
        with contextlib.suppress(DlsError):
            endpoint.connection.run(launch.wake_script(endpoint.state), timeout=SCRIPT_TIMEOUT)
            if check is not None and check.is_answered_within(WAKE_SECONDS):
                return True
            if self._stopped.is_set():
                return True
            self.reporter.note(f"The server on {self._target} says nothing: ending it, and starting another.")
            endpoint.connection.run(launch.kill_script(endpoint.state), timeout=SCRIPT_TIMEOUT)
        return False
