"""Keeps the way to the server open: judges it by answers awaited, and mends what is broken, for as long as it takes."""

from __future__ import annotations

import contextlib
import enum
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from dls.errors import DlsError, ForwardError, HostKeyError, LinkError, LoginError
from dls.remote.host import launch, status
from dls.remote.host.deploy import Deployment
from dls.remote.host.options import ServerOptions
from dls.remote.progress import Phases, Reporter, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.login import LoginOptions, log_in
from dls.remote.ssh.prompters import CachingPrompter, ThreadedPrompter
from dls.remote.ssh.prompts import CannotAsk
from dls.remote.tunnel.link import Endpoint, Link, LinkState

LOOK_SECONDS = 5.0
"""Between two looks at the link and the server."""
LINK_DEADLINE = 10.0
"""Seconds without any answer after which the link counts as lost. paramiko's own keep-alive took 947 s, or never."""
AWAKE_DEADLINE = 3.0
"""The same after the computer slept."""
HUNG_SECONDS = 20.0
"""Seconds without an answer from a server whose host answers, after which it is ended and started anew."""
SECOND_CHANCE = 10.0
LONGEST_PAUSE = 10.0
"""Between two tries to connect again."""
ASLEEP_LOOK_SECONDS = 15.0
SLEPT_SECONDS = 15.0
"""A wait that took so much longer by the clock on the wall was a sleep of the computer."""
REFUSALS = 3
"""Logins that the host may refuse, in a row, before we stop: more could lock the account."""
REFUSED_PAUSE = 20.0


class Verdict(enum.Enum):
    """What a look found."""

    WELL = "well"
    LINK_LOST = "the link is lost"
    SERVER_GONE = "the server is gone"
    SERVER_SILENT = "the server says nothing"


@dataclass(frozen=True)
class Clock:
    """The clocks, so that a test can have its own: `steady` stands still while a computer sleeps, `wall` does not."""

    steady: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time


class Supervisor(threading.Thread):
    """Watches the link and the server, and brings back what was lost."""

    def __init__(
        self,
        target: str,
        login: LoginOptions,
        request: ServerOptions,
        link: Link,
        prompter: ThreadedPrompter,
        memory: CachingPrompter,
        reporter: Reporter,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(name="dls-keeper", daemon=True)
        self.failed = threading.Event()
        self.error: DlsError | None = None
        """Why it gave up."""
        self._target = target
        self._login = login
        self._request = request
        self._link = link
        self._prompter = prompter
        self._memory = memory
        self._reporter = reporter
        self._clock = clock or Clock()
        self._stopped = threading.Event()
        self._refusals = 0
        self._said = ""
        """The failure that was shown last; the same one again is no news."""
        self._probing: _Probe | None = None

    def run(self) -> None:
        """Look and mend until it is stopped, or until mending has no hope."""
        patience = LINK_DEADLINE
        try:
            while not self._stopped.is_set():
                if self._link.way is LinkState.ASLEEP:
                    self._doze()
                elif (verdict := self.look(patience)) is Verdict.WELL:
                    # After a sleep the link is most likely gone: there is no sense in waiting long for an answer.
                    patience = AWAKE_DEADLINE if self._pause(LOOK_SECONDS) else LINK_DEADLINE
                elif not self._stopped.is_set():
                    self._mend(verdict)
        except DlsError as error:
            self.error = error
            self._link.lost(LinkState.LOST, error.message)
        except Exception as error:  # a mistake of ours must not look like a link that is fine
            self.error = LinkError(f"dls made a mistake while it watched the link: {type(error).__name__}: {error}.")
        self.failed.set()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._link.stirred.set()

    def _pause(self, seconds: float) -> bool:
        """Wait, less long when somebody wants the way; return whether the computer slept meanwhile."""
        steady, wall = self._clock.steady(), self._clock.wall()
        deadline = steady + seconds
        while self._clock.steady() < deadline and not self._stopped.is_set():
            # In short steps: a sleeping computer's clock may stand still, and then wakes in the middle of a wait.
            if self._link.stirred.wait(min(1.0, seconds)):
                self._link.stirred.clear()
                break
            if self._has_slept(steady, wall):
                return True
        return self._has_slept(steady, wall)

    def _has_slept(self, steady: float, wall: float) -> bool:
        return (self._clock.wall() - wall) - (self._clock.steady() - steady) > SLEPT_SECONDS

    def look(self, patience: float = LINK_DEADLINE) -> Verdict:
        """Ask the server how it is; when it says nothing, ask its host. The link has so many seconds to answer."""
        end = self._link.end
        if not end.connection.is_active():
            return Verdict.LINK_LOST
        probe = _Probe(end)
        asked = time.monotonic()
        if probe.ended.wait(patience / 2):
            return self._judged(probe, end)
        greeting = _Greeting(end.connection)
        while time.monotonic() - asked < patience:
            if probe.ended.wait(0.2):
                return self._judged(probe, end)
            if self._stopped.is_set():
                return Verdict.WELL
        if not (greeting.answered or end.connection.last_heard > asked):
            return Verdict.LINK_LOST
        while time.monotonic() - asked < HUNG_SECONDS:
            greeting = _Greeting(end.connection)
            if probe.ended.wait(LOOK_SECONDS) or self._stopped.is_set():
                return self._judged(probe, end)
            if not (greeting.answered and end.connection.is_active()):
                return Verdict.LINK_LOST
        self._probing = probe
        return Verdict.SERVER_SILENT

    def _judged(self, probe: _Probe, end: Endpoint) -> Verdict:
        if probe.answered or self._stopped.is_set():
            return Verdict.WELL
        return Verdict.SERVER_GONE if end.connection.is_active() else Verdict.LINK_LOST

    def _mend(self, verdict: Verdict) -> None:
        started = self._clock.steady()
        where = self._target
        self._said = ""
        connection: Connection | None = self._link.end.connection
        if verdict is Verdict.LINK_LOST:
            self._close()
            connection = None
            self._tell(f"The connection to {where} was lost. Connecting again; ITK-SNAP can stay as it is.")
        elif verdict is Verdict.SERVER_SILENT and self._given_a_second_chance():
            return
        pause = 0.0
        while not self._stopped.is_set():
            try:
                if connection is None:
                    connection = self._logged_in()
                if self._arrive(connection):
                    seconds = self._clock.steady() - started
                    self._reporter.link(True, f"Connected to {where} again, after {seconds:.0f} s.")
                return
            except DlsError as error:
                if connection is not None and not connection.is_active():
                    connection = None
                pause = self._after(error, pause)
            if self._refusals:
                self._stopped.wait(REFUSED_PAUSE)  # however much somebody wants the way
            elif self._pause(pause):
                pause = 0.0
            if connection is not None and not connection.is_active():
                connection = None

    def _close(self) -> None:
        self._link.end.connection.close()

    def _tell(self, why: str) -> None:
        self._link.lost(LinkState.LOST, why)
        self._reporter.link(False, why)

    def _logged_in(self) -> Connection:
        try:
            connection = log_in(self._target, self._login, self._prompter, Phases(Silent()))
        except (LoginError, HostKeyError):
            self._memory.login_refused()
            raise
        except DlsError:
            self._memory.login_interrupted()
            raise
        self._memory.login_accepted()
        self._refusals = 0
        return connection

    def _after(self, error: DlsError, pause: float) -> float:
        """Return how long to wait before the next try; raises the error when there is no hope."""
        if isinstance(error, HostKeyError | CannotAsk):
            raise error
        self._link.lost(LinkState.LOST, error.message)
        if error.message != self._said:
            self._said = error.message
            self._reporter.note(error.message)
        if isinstance(error, LoginError):
            self._refusals += 1
            if self._refusals >= REFUSALS:
                raise error
        longest = min(LONGEST_PAUSE, max(0.5, pause * 2))
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - that many clients do not come back at once

    def _arrive(self, connection: Connection) -> bool:
        """Find the server, or start it again unless it was to end; False when it is asleep."""
        why = f"The server on {self._target} has ended. Bringing it back, with its sessions."
        if is_news := self._link.way is LinkState.OPEN:
            self._link.lost(LinkState.LOST, why)
        # Where sockets can't be forwarded, that is known by now.
        request = replace(self._request, tcp=self._link.end.state.port is not None)
        phases = Phases(_Notes(self._reporter))
        deployment = Deployment.start(self._login, request, connection, phases, reconnecting=True)
        if deployment.ended_on_purpose and not self._link.wanted:
            self._link.end = replace(self._link.end, connection=connection)
            self._link.lost(LinkState.ASLEEP, "The server was ended; the next request starts it again.")
            self._reporter.note(f"The server on {self._target} was ended. The next click starts it again.")
            return False
        if is_news:
            self._reporter.link(False, why)
        try:
            state = deployment.find_or_start()
        except ForwardError as error:
            if not connection.is_active():
                raise LinkError(error.message, error.hint) from error
            raise
        self._link.opened(Endpoint(connection, state, deployment.protocol))
        return True

    def _doze(self) -> None:
        """Stay connected to a host whose server is not needed, until it is."""
        end = self._link.end
        if self._pause_asleep(end):
            self._mend(Verdict.SERVER_GONE if end.connection.is_active() else Verdict.LINK_LOST)

    def _pause_asleep(self, end: Endpoint) -> bool:
        """Wait for a reason to look; another client may have started the server."""
        deadline = time.monotonic() + ASLEEP_LOOK_SECONDS
        while time.monotonic() < deadline and not self._stopped.is_set():
            self._link.stirred.wait(1.0)
            self._link.stirred.clear()
            if self._link.wanted or not end.connection.is_active():
                return not self._stopped.is_set()
        if self._stopped.is_set():
            return False
        greeting = _Greeting(end.connection)
        greeting.join(LINK_DEADLINE)
        if not greeting.answered:
            end.connection.close()
            return True
        with contextlib.suppress(DlsError):
            end.open().close()
            return True
        return False

    def _given_a_second_chance(self) -> bool:
        """Wake a server that was stopped, and end it when that does not help; True when it answers after all.

        The script comes back only over a link that carries data: a server whose answers wait behind an upload on a
        slow link is not ended.
        """
        probe, end = self._probing, self._link.end
        with contextlib.suppress(DlsError):
            end.connection.run(launch.wake_script(end.state), timeout=LINK_DEADLINE * 3)
            if probe is not None and probe.ended.wait(SECOND_CHANCE) and probe.answered:
                return True
            self._reporter.note(f"The server on {self._target} says nothing: ending it, and starting another.")
            end.connection.run(launch.kill_script(end.state), timeout=LINK_DEADLINE * 3)
        return False


class _Probe(threading.Thread):
    """One request to the server: whether it answers as itself."""

    def __init__(self, end: Endpoint) -> None:
        super().__init__(name="dls-look", daemon=True)
        self.ended = threading.Event()
        self.answered = False
        self._end = end
        self.start()

    def run(self) -> None:
        with contextlib.suppress(DlsError):
            self.answered = bool(status.identify(self._end.connection, self._end.state))
        self.ended.set()


class _Greeting(threading.Thread):
    """One request to the host's SSH server, which answers whatever the server of ours does."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(name="dls-keepalive", daemon=True)
        self.answered = False
        self._connection = connection
        self.start()

    def run(self) -> None:
        self.answered = self._connection.answers_keepalive()


class _Notes(Silent):
    """Tells of what takes long, and of notes: a connection that is mended is not shown phase by phase."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def begin(self, phase: str, text: str) -> None:
        """Say that something is installed."""
        if phase == "install":
            self._reporter.note(f"{text} …")

    def note(self, text: str) -> None:
        """Pass it on."""
        self._reporter.note(text)
