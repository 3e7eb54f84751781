"""What happens between the login and the panel: the server found or set up, the port opened, the engine ready."""

from __future__ import annotations

import time
from dataclasses import replace

import paramiko

from dls.errors import EngineError, ForwardError, LaunchError
from dls.remote import install, launch
from dls.remote.connection import Connection, Prohibited
from dls.remote.forward import DEFAULT_PORT, Forward
from dls.remote.launch import ServerRequest
from dls.remote.packages import Code, requirements
from dls.remote.probe import DEFAULT_REMOTE_DIR, HostReport, ServerState, probe
from dls.remote.progress import Phases
from dls.remote.reach import Reach

ENGINE_POLL_SECONDS = 0.3


class Arrival:
    """What happens between the login and the open port."""

    def __init__(self, reach: Reach, request: ServerRequest, connection: Connection, phases: Phases) -> None:
        self._reach = reach
        self._request = request
        self._connection = connection
        self._phases = phases
        self._code = Code.installed()
        self._said: dict[str, object] = {}
        """What the server said when it was asked who it is."""
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
            self._said = launch.identify(self._connection, state)
        except Prohibited:
            raise
        except ForwardError:  # nobody listens there any more
            return None
        return state if self._said else None

    def _set_up(self, request: ServerRequest) -> ServerState:
        if not self.report.full:
            self.report = self._probe(full=True)
        plan = install.plan(self.report, requirements(request.engine), self._code.key)
        if not plan.nothing_to_do:
            with self._phases("install", f"Setting up {self._connection.target.label}") as phase:
                own_caches = self._reach.remote_dir != DEFAULT_REMOTE_DIR
                install.install(self._connection, plan, self._code, phase, own_caches=own_caches)
                phase.result = "Installed the packages and our code" if plan.make_environment else "Sent our code"
        gpu = launch.choose_gpu(self.report.gpus, request)
        with self._phases("launch", "Starting the server") as phase:
            if self.report.server is not None:
                phase.update("ending the server that runs, which has other code or options")
                launch.stop(self._connection, self.report.server)
            state = launch.launch(self._connection, self.report, plan, request, self._code.key, gpu)
            self.report = replace(self.report, server=state, full=True)
            self._said = launch.identify(self._connection, state)
            if not self._said:
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
            return launch.ask_status(self._connection, state)
        except ForwardError:  # it ended: nobody listens there any more
            return {}

    def _engine_failed(self, state: ServerState, why: str) -> EngineError:
        tail = self._connection.run(launch.log_script(state.log, launch.LOG_LINES, follow=False), timeout=30).stdout
        told, hint = launch.last_words(tail)
        message = why or told or "The server ended while it loaded its engine."
        where = self._connection.target.label
        return EngineError(f"The engine on {where} is not ready. {message}", hint or f"Its log: {state.log}", tail)


def _described(report: HostReport) -> str:
    parts = [f"{report.hostname}, {report.system} {report.machine}"]
    if report.gpus:
        parts.append("; ".join(str(gpu) for gpu in report.gpus))
    elif report.full:
        parts.append("no NVIDIA GPU")
    if report.server is not None:
        parts.append("a server is running")
    return ", ".join(parts)
