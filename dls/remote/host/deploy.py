"""What happens between the login and the panel: the server found or set up, the port opened, the engine ready."""

from __future__ import annotations

import time
from dataclasses import replace

from dls import __version__
from dls.contract import DEFAULT_REMOTE_DIR, ServerState
from dls.errors import EngineError, ForwardError, LaunchError
from dls.remote.host import install, launch, status
from dls.remote.host.launch import ServerOptions
from dls.remote.host.packages import Code, requirements
from dls.remote.host.probe import Depth, HostReport, probe
from dls.remote.progress import Phases
from dls.remote.ssh.connection import Connection, Prohibited
from dls.remote.ssh.login import LoginOptions

ENGINE_POLL_SECONDS = 0.1
MENDING_SECONDS = 2.5
LAST_WORDS_TRIES = 20
REPLACING = "Starting the server anew: the one that runs finishes its requests first"
IDLE_SECONDS = 20.0
"""A server that nobody has asked anything for so long has no client that is connected."""


class Deployment:
    """What happens between the login and the open port; `again` when it is not for the first time."""

    def __init__(
        self,
        login: LoginOptions,
        request: ServerOptions,
        connection: Connection,
        phases: Phases,
        *,
        again: bool = False,
    ) -> None:
        self._login = login
        self._request = request
        self._connection = connection
        self._phases = phases
        self._again = again
        self._waited = False
        self._code = Code.installed()
        self._said: dict[str, object] = {}
        """What the server said when it was asked who it is."""
        self.report = self._probe(Depth.SERVER)

    def _probe(self, depth: Depth) -> HostReport:
        with self._phases("probe", f"Looking at {self._connection.target.label}") as phase:
            report = probe(self._connection, self._login.remote_dir, depth)
            phase.result = _described(report)
        return report

    @property
    def protocol(self) -> str:
        """The version of the protocol, as the server says it."""
        return str(self._said.get("version", ""))

    @property
    def was_ended(self) -> bool:
        """Whether the server is not there because it was to end."""
        ours = {wish.run_dir(self.report.run_dir) for wish in self._wishes}
        return bool(ours & self.report.ended) and not any(s.run_dir in ours for s in self.report.servers)

    @property
    def _wishes(self) -> tuple[ServerOptions, ...]:
        return tuple(replace(self._request, tcp=tcp) for tcp in (False, True))

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
        keys = {wish.key for wish in self._wishes}
        for state in self.report.servers:
            if state.request in keys and self._is_good_enough(state):
                try:
                    self._said = status.identify(self._connection, state)
                except Prohibited:
                    raise
                except ForwardError:  # nobody listens there any more
                    continue
                if self._said:
                    return state
        return None

    def _is_good_enough(self, state: ServerState) -> bool:
        """Whether we work with the server's code: our own or newer; after a lost link, whatever another client chose.

        Two clients of different versions would else end each other's servers for ever.
        """
        if state.code == self._code.key or self._again:
            return True
        if _numbers(state.version) > _numbers(__version__):
            self._phases.reporter.note(f"The server there is of a newer dls ({state.version}) and stays.")
            return True
        return False

    def _set_up(self, request: ServerOptions) -> ServerState:
        if not self.report.knows_gpus:
            self.report = self._probe(Depth.GPUS)
        if not (self.report.full or install.is_made(self.report, requirements(request.engine))):
            self.report = self._probe(Depth.ALL)
        plan = install.plan(self.report, requirements(request.engine), self._code.key)
        self._install(plan)
        replaced = self._make_way(request)
        try:
            return self._launch(request, plan, replaced)
        except LaunchError as error:
            if launch.is_there_already(error.detail) and not self._waited:
                return self._after_mending(request)
            if not launch.is_damaged(error.detail) or plan.make_environment:
                raise
        self._phases.reporter.note("What was installed there is damaged: installing it again.")
        self.report = self._probe(Depth.ALL)
        plan = install.plan_anew(self.report, requirements(request.engine), self._code.key)
        install.set_aside(self._connection, plan)
        self._install(plan)
        return self._launch(request, plan)

    def _after_mending(self, request: ServerOptions) -> ServerState:
        """Find the server whose files were cleaned away: it puts them back within seconds."""
        self._waited = True
        time.sleep(MENDING_SECONDS)
        self.report = self._probe(Depth.SERVER)
        return self._find() or self._set_up(request)

    def _install(self, plan: install.InstallPlan) -> None:
        if plan.nothing_to_do:
            return
        with self._phases("install", f"Setting up {self._connection.target.label}") as phase:
            own_caches = self._login.remote_dir != DEFAULT_REMOTE_DIR
            install.install(self._connection, plan, self._code, phase, own_caches=own_caches)
            phase.result = "Installed the packages and our code" if plan.make_environment else "Sent our code"

    def _make_way(self, request: ServerOptions) -> ServerState | None:
        """End servers with other options that nobody uses; return the one that the new one replaces. Sessions stay."""
        replaced = None
        for state in self.report.servers:
            if state.run_dir == request.run_dir(self.report.run_dir):
                replaced = state
            elif state.run_dir == self.report.run_dir or self._is_idle(state):
                with self._phases("stop", "Ending a server with other options that nobody uses") as phase:
                    launch.stop(self._connection, state)
                    phase.result = f"Ended a server with other options ({state.engine}); its sessions stay"
        return replaced

    def _is_idle(self, state: ServerState) -> bool:
        """Whether nobody is connected to the server: every client asks how it is every few seconds."""
        idle = self._ask(state).get("idle")
        return not isinstance(idle, int | float) or idle > IDLE_SECONDS

    def _launch(
        self, request: ServerOptions, plan: install.InstallPlan, replaced: ServerState | None = None
    ) -> ServerState:
        gpu = launch.choose_gpu(self.report.gpus, request)
        with self._phases("launch", "Starting the server" if replaced is None else REPLACING) as phase:
            state = launch.launch(self._connection, self.report, plan, request, self._code.key, gpu, replaced)
            self.report = replace(self.report, servers=(state,))
            self._said = status.identify(self._connection, state)
            if not self._said:
                raise LaunchError(
                    f"The server on {self._connection.target.label} started but does not answer.",
                    f"Its log: {state.log}",
                )
            again = "" if replaced is None else " anew; its sessions stay"
            phase.result = f"Started the server ({state.engine}){again}"
        return state

    def wait_for_engine(self, state: ServerState) -> ServerState:
        """Wait until the server has fetched, loaded and warmed up its model, showing how far it is.

        Returns the state with the device that the engine chose.
        """
        # One that was ready when it said who it is need not be asked again: that is a round trip of a warm connect.
        said = self._ask(state) if "state" in self._said else self._said
        if not said or "state" in said:
            said = self._wait(state, said)
        state = replace(state, device=str(said.get("device", state.device)))
        if notice := str(said.get("notice", "")):
            self._phases.reporter.note(notice)
        if state.device == "cpu" and state.engine != "region":
            self._phases.reporter.note(
                f"{state.engine} computes on the CPU there: a click takes from half a minute on, not a second."
            )
        return state

    def _wait(self, state: ServerState, said: dict[str, object]) -> dict[str, object]:
        with self._phases("engine", "Getting the engine ready") as phase:
            while said.get("state") == "loading":
                phase.update(str(said.get("text", "")))
                time.sleep(ENGINE_POLL_SECONDS)
                said = self._ask(state)
            if not said or "state" in said:
                raise self._engine_failed(state, str(said.get("error", "")))
            phase.result = f"The engine is ready on {said.get('device', 'the host')}"
        return said

    def _ask(self, state: ServerState) -> dict[str, object]:
        try:
            return status.ask_status(self._connection, state)
        except ForwardError:  # it ended: nobody listens there any more
            return {}

    def _engine_failed(self, state: ServerState, why: str) -> EngineError:
        for _ in range(LAST_WORDS_TRIES):
            tail = self._connection.run(launch.log_script(state.log, launch.LOG_LINES, follow=False), timeout=30).stdout
            told, hint = launch.last_words(tail)
            if why or told:
                break
            time.sleep(0.5)  # it closes its connections before it says why
        message = why or told or "The server ended while it loaded its engine."
        where = self._connection.target.label
        return EngineError(f"The engine on {where} is not ready. {message}", hint or f"Its log: {state.log}", tail)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())


def _described(report: HostReport) -> str:
    parts = [f"{report.hostname}, {report.system} {report.machine}"]
    if report.gpus:
        parts.append("; ".join(str(gpu) for gpu in report.gpus))
    elif report.knows_gpus:
        parts.append("no NVIDIA GPU")
    if report.servers:
        parts.append("a server is running")
    return ", ".join(parts)
